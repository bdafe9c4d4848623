"""The simulated shop as it is put to the service: like the dataset that it opened with."""

from pathlib import Path

from trainer.dataset import load_dataset
from trainer.simulation.world import open_world


def test_what_is_put_of_a_new_item_has_the_types_of_the_items_before(tmp_path: Path) -> None:
    world = open_world(tmp_path, users=50, items=50, seed=0)
    catalogue = load_dataset(world.base).catalogue
    assert catalogue is not None
    old = {name: type(value) for record in catalogue for name, value in record.items() if value is not None}
    put = dict(world.next_day(days_left=1))
    assert list(put) == world.item_ids[len(catalogue) :]
    for body in put.values():
        new = {name: type(value) for name, value in body["metadata"].items()}
        assert {"item_id": str, **new}.items() <= old.items()
        assert new["price"] is float
