import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import Checkout, Cluster, Occupied, missing


@pytest.fixture(scope="session")
def cluster():
    """A running two-node SLURM."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: sockets have a length limit
    found = Cluster(folder)
    try:
        found.up()
        yield found
    except Occupied as error:
        pytest.skip(str(error))
    finally:
        found.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def checkout(cluster, tmp_path_factory):
    """A checkout for sweeps on the cluster."""
    return Checkout(tmp_path_factory.mktemp("cluster"), cluster.environ)


@pytest.fixture(scope="session")
def local(cluster, tmp_path_factory):
    """A checkout in which the same sweep ran undisturbed on this machine."""
    return Checkout(tmp_path_factory.mktemp("local"), cluster.environ)
