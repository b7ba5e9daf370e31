"""What decides about one call's audio and turns: frame processors and the pure cores behind them.

Takes plain values, never settings; knows no vendor, no route and nothing of `bot/`.
"""
