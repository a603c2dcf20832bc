"""Runs a client of Server-Sent Events from PyPI that reconnects by itself: sse.py CLIENT URL.

Prints each event on a line of its own, its type first, up to the event whose data is `end`. Exits
with 3 if the client is not installed.
"""

import sys
from datetime import timedelta


def requests_sse(url):
    import requests_sse

    with requests_sse.EventSource(url, reconnection_time=timedelta(milliseconds=50), max_connect_retry=8) as source:
        for event in source:
            yield event.type, event.data


def launchdarkly(url):
    import ld_eventsource
    from ld_eventsource.config import ErrorStrategy

    again = ErrorStrategy.always_continue()
    with ld_eventsource.SSEClient(url, initial_retry_delay=0.05, error_strategy=again) as source:
        for event in source.events:
            yield event.event, event.data


try:
    for kind, data in globals()[sys.argv[1]](sys.argv[2]):
        print(kind, data, flush=True)
        if '"data":"end"' in data:
            break
except ImportError:
    sys.exit(3)
