# First Ring as a container: slim, not root, everything present at build.
#   docker build -t first-ring .
#   docker run --init -p 127.0.0.1:7860:7860 --env-file .env -e HOST=0.0.0.0 -e PORT=7860 \
#     -v first-ring:/app/data --stop-timeout 130 first-ring
# On loopback: the page has no password. See README for what to let in from outside. HOST and PORT are those inside
# the container, whatever .env says. A folder of the host in place of the volume must belong to user 10001. Nothing is
# written outside of data and /tmp: --read-only --tmpfs /tmp --cap-drop ALL works.

# The Python that the tests run on. For 3.12 pocketsphinx has no wheel, and slim has no compiler.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
COPY requirements/run.txt /tmp/run.txt
RUN /venv/bin/pip install --quiet --require-hashes -r /tmp/run.txt \
 && /venv/bin/python -m compileall -q /venv

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=7860
RUN useradd --uid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin firstring
WORKDIR /app
COPY --from=build /venv /venv
COPY . /app
# The speech models come inside the pipecat wheel; the build fails here, not the first call, if they ever do not.
# The agents are checked as at start.
RUN mkdir -p data runs && chown firstring data runs && python -m compileall -q . \
 && python -c "import importlib.resources as r; d = r.files('pipecat.audio'); \
[f.stat() for f in (d / 'vad/data/silero_vad.onnx', d / 'turn/smart_turn/data/smart-turn-v3.2-cpu.onnx')]" \
 && for agent in flows/*/agent.yaml; do python -m bot.cli check "${agent%/agent.yaml}" || exit 1; done
# By number: Kubernetes takes no name for proof that it is not root.
USER 10001
VOLUME /app/data
EXPOSE 7860
# SIGTERM stops new calls and lets the running ones end, for 120 s at most; Docker's own patience is 10 s (--stop-timeout).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD python -c "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/healthz\", timeout=2)"
CMD ["python", "-m", "bot.cli", "serve"]
