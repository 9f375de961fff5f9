"""How long one text waits while somebody else embeds thousands: a client each, side by side.

Prints the latency of one-text requests on the idle server and beside a client that streams requests
of 2,048 texts, and what the bulk client gets with and without the other.

    python bench/interactive.py http://127.0.0.1:3000
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import requests
import texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of a running server")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--texts", choices=texts.KINDS, default="en20")
    args = parser.parse_args()
    sample = texts.make(args.texts, 2048)
    idle = latencies(args.url, sample, args.seconds)
    bulk = Bulk(args.url, sample)
    alone = bulk.rate(args.seconds)
    with bulk:
        beside = latencies(args.url, sample, args.seconds)
    for name, found in (("idle", idle), ("beside bulk", beside)):
        print(f"one text, {name:12} P50 {quantile(found, 50):7.2f} ms   P99 {quantile(found, 99):7.2f} ms")
    print(f"P99 ratio {quantile(beside, 99) / quantile(idle, 99):.2f}")
    print(f"bulk alone {alone:.0f} texts/s, beside the other client {bulk.last_rate:.0f} texts/s")


def latencies(url: str, sample: list[str], seconds: float) -> list[float]:
    """Milliseconds of one-text requests, one after the other."""
    found = []
    until = time.perf_counter() + seconds
    with requests.Session() as session:
        for number in range(10_000_000):
            began = time.perf_counter()
            if began > until:
                break
            body = {"input": sample[number % len(sample)], "encoding_format": "base64"}
            session.post(f"{url}/v1/embeddings", json=body, timeout=60).raise_for_status()
            found.append((time.perf_counter() - began) * 1e3)
    return found[5:]


class Bulk:
    """A client that sends one large request after the other while the block lasts."""

    def __init__(self, url: str, sample: list[str]) -> None:
        self._url = url
        self._sample = sample
        self._stop = threading.Event()
        self.last_rate = 0.0

    def __enter__(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        time.sleep(0.5)

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def rate(self, seconds: float) -> float:
        """Texts per second without anybody else."""
        with self:
            time.sleep(seconds)
        return self.last_rate

    def _run(self) -> None:
        began = time.perf_counter()
        count = 0
        while not self._stop.is_set() or not count:
            body = {"input": self._sample, "encoding_format": "base64"}
            requests.post(f"{self._url}/v1/embeddings", json=body, timeout=120).raise_for_status()
            count += len(self._sample)
        self.last_rate = count / (time.perf_counter() - began)


def quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


if __name__ == "__main__":
    main()
