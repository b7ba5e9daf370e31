"""What every store raises when it cannot answer."""


class StoreUnavailableError(Exception):
    """The store did not answer in time, could not be reached, or refused.

    Whether a write took place is not known: whoever writes must be able to repeat it.
    """
