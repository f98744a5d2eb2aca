"""Tests of how a worker process is told of more queues, without a Redis."""

from collections.abc import Callable
from dataclasses import dataclass, field

from workers.app import celery_app
from workers.consuming import Consuming


@dataclass
class ToldConsumer:
    """Celery's consumer, as far as it is told of queues."""

    is_away: bool
    hub: object = field(default_factory=object)
    waiting: list[Callable[..., None]] = field(default_factory=list)

    def call_soon(self, call: Callable[..., None], *_: object) -> None:
        self.waiting.append(call)


def test_nothing_piles_up_in_the_consumer_for_as_long_as_redis_is_away() -> None:
    consuming = Consuming(celery_app("redis://nowhere.invalid"), name="worker-1", queues=["plan"], threads=1)
    consumer = ToldConsumer(is_away=True)
    consuming._worker.consumer = consumer
    for _ in range(100):
        consuming.take_also(["plan", "host.late"])
    assert not consumer.waiting
    consumer.is_away = False
    consuming.take_also(["plan", "host.late"])
    assert len(consumer.waiting) == 1
