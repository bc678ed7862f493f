#!/usr/bin/env python3
"""Argilla's own package, and its own server, with what Pairwright writes and sends.

Makes the demonstration's run, votes in it, and looks at what comes out with the real `argilla` package: settings and records of
`export --argilla`, suggestions and responses included. With --server-python also at a real argilla-server: what `push-argilla` sends is
there, responses given there come back as votes, and a folder loads by `rg.Dataset.from_disk`.

    pip install argilla==2.8.0 requests
    scripts/check_argilla.py PROGRAM [--server-python PYTHON]

PYTHON is that of another environment with `argilla-server==2.8.0 'click<8.2'`; `redis-server` has to be there too. The search engine is a
stand-in of this script: it answers the calls of Elasticsearch that the server makes while records are written, and finds nothing by text.
Nothing leaves this machine. `push-argilla` needs a program built with the feature `hub`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import MagicMock

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", NO_COLOR="1")
KEY = "argilla.apikey"
USER = "5b0f3a1c-1111-4222-8333-444455556666"


def pairwright(program, *arguments):
    """Runs the program and gives what it says as JSON, if it does."""
    environment = {**os.environ, "ARGILLA_API_KEY": KEY, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return json.loads(done.stdout) if done.stdout else None


def same(got, expected, what):
    assert got == expected, f"{what}: {got!r}, expected {expected!r}"


def vote(program, run, folder, user, rank):
    """Exports, answers the first records as `user` would, imports. Gives the responses by record."""
    flags = ["--rank"] if rank else []
    pairwright(program, "export", run, "--argilla", folder, "-q", *flags)
    path = folder / "records.json"
    records = json.loads(path.read_text())
    said = {}
    for at, record in enumerate(records[:6]):
        letters = [name[-1] for name in record["fields"] if name.startswith("answer_")]
        if rank:
            # Those that a record lacks stand last.
            most = max(len(other["fields"]) for other in records) - 1
            names = "abcdef"[:most]
            ranks = [letters.index(name) + 1 if name in letters else most for name in names]
            values = {"ranking": [{"value": name, "rank": place} for name, place in zip(names, ranks)]}
        else:
            values = [{"preference": "a", "rating_a": 5}, {"preference": "b"}, {"preference": "tie"}][at % 3]
        said[record["id"]] = values
        record["responses"] = {name: [{"value": value, "user_id": user, "status": "submitted"}] for name, value in values.items()}
    path.write_text(json.dumps(records))
    users = folder.parent / "users.txt"
    users.write_text(f"ann {user}\n")
    imported = pairwright(program, "import", run, "--argilla", folder, "--users", users, "--add-people", "--json")
    same(imported["num_new"] + imported["num_known"], len(said), "responses that became votes")
    shutil.rmtree(folder)
    return said, users


def check_folder(rg, program, run, folder, said, users, rank):
    """What `export --argilla` wrote, as the package reads it."""
    flags = ["--rank"] if rank else []
    written = pairwright(program, "export", run, "--argilla", folder, "--users", users, "--json", *flags)
    settings = rg.Settings.from_json(folder / ".argilla" / "settings.json")
    same(settings.distribution.min_submitted, 1, "responses wanted")
    questions = [question.name for question in settings.questions]
    required = [question.name for question in settings.questions if question.required]
    same(required, ["ranking" if rank else "preference"], "required questions")
    assert {"rating_a", "rating_b", "flag", "edit"} < set(questions), questions
    same([field.name for field in settings.fields][:3], ["prompt", "answer_a", "answer_b"], "fields")
    same([one.name for one in settings.metadata], ["language"], "metadata")
    raw = json.loads((folder / "records.json").read_text())
    records = [rg.Record.from_dict(record) for record in raw]
    same(len(records), written["num_records"], "records")
    num_suggestions = num_responses = 0
    for record, plain in zip(records, raw):
        same(record.id, plain["id"], "a record's id")
        same(dict(record.fields.items()), plain["fields"], "a record's fields")
        for suggestion in record.suggestions:
            same(suggestion.value, plain["suggestions"][suggestion.question_name]["value"], "a suggestion")
            same(suggestion.agent, plain["suggestions"][suggestion.question_name]["agent"], "who suggests")
            num_suggestions += 1
        given = {response.question_name: response.value for response in record.responses}
        same(given, said.get(record.id, {}), "responses of a record")
        assert all(str(response.user_id) == str(USER_OF[0]) and response.status == "submitted" for response in record.responses)
        num_responses += bool(given)
    same(num_responses, written["num_responses"], "responses")
    assert num_suggestions >= 2 * len(records), num_suggestions
    print(f"package: {len(records)} records, {num_suggestions} suggestions, {num_responses} responses{' (rankings)' if rank else ''}")


# The user whom votes belong to: made up, or the server's own.
USER_OF = [USER]


class Search(BaseHTTPRequestHandler):
    """The stand-in for Elasticsearch; see above."""

    protocol_version = "HTTP/1.1"
    indices = {}

    def log_message(self, *_):
        pass

    def answer(self, status, value=None):
        body = b"" if value is None or self.command == "HEAD" else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [part for part in self.path.split("?")[0].split("/") if part]
        if not parts:
            return self.answer(200, {"version": {"number": "8.17.0", "build_flavor": "default"}, "tagline": "You Know, for Search"})
        if parts[-1] == "_bulk":
            return self.answer(200, {"took": 1, "errors": False, "items": self.bulk([json.loads(line) for line in body.split(b"\n") if line.strip()])})
        if parts[-1] == "_search":
            documents = self.indices.get(parts[0], set())
            hits = {"total": {"value": len(documents), "relation": "eq"}, "max_score": 1.0, "hits": []}
            return self.answer(200, {"took": 1, "timed_out": False, "_shards": {}, "hits": hits})
        if len(parts) == 1 and self.command == "HEAD":
            return self.answer(200 if parts[0] in self.indices else 404)
        if len(parts) == 1 and self.command == "PUT":
            self.indices[parts[0]] = set()
        return self.answer(200, {"acknowledged": True, "result": "updated"})

    def bulk(self, lines):
        done = []
        while lines:
            ((kind, about),) = lines.pop(0).items()
            if kind != "delete":
                lines.pop(0)
            self.indices.setdefault(about["_index"], set()).add(about["_id"])
            done.append({kind: {"_index": about["_index"], "_id": about["_id"], "status": 200}})
        return done

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any


def ask(url, path):
    request = urllib.request.Request(f"{url}/api/v1/{path}", headers={"X-Argilla-Api-Key": KEY})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def serve(python, home, port):
    """Search, Redis and the server; gives the server's address and the processes."""
    search = ThreadingHTTPServer(("127.0.0.1", 0), Search)
    threading.Thread(target=search.serve_forever, daemon=True).start()
    redis = subprocess.Popen(["redis-server", "--port", str(port + 1), "--save", "", "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    environment = {
        **os.environ,
        "ARGILLA_HOME_PATH": str(home),
        "ARGILLA_ELASTICSEARCH": f"http://127.0.0.1:{search.server_port}",
        "ARGILLA_REDIS_URL": f"redis://127.0.0.1:{port + 1}/0",
    }
    log = open(home / "server.log", "w")
    for command in (["database", "migrate"], ["database", "users", "create_default", "--api-key", KEY, "--password", "12345678"]):
        subprocess.run([python, "-m", "argilla_server", *command], env=environment, stdout=log, stderr=log, check=True)
    command = [python, "-m", "uvicorn", "argilla_server:app", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            ask(url, "me")
            return url, [server, redis]
        except OSError:
            assert server.poll() is None, (home / "server.log").read_text()[-2000:]
            time.sleep(0.5)
    raise AssertionError("the server is not ready")


def check_server(rg, program, run, folder, url, said, users, rank):
    """What `push-argilla` sends, as the server has it, and back."""
    name, flags = ("ranked", ["--rank"]) if rank else ("pairs", [])
    push = ["push-argilla", run, "--url", url, "--dataset", name, "--users", users, "--json", *flags]
    pushed = pairwright(program, *push)
    same((pushed["num_responses"], pushed["num_known"]), (len(said), 0), "the first push")
    again = pairwright(program, *push)
    same((again["num_responses"], again["num_kept"], again["num_known"]), (0, len(said), pushed["num_records"]), "the second push")
    path = f"datasets/{pushed['id']}/records?include=responses,suggestions&limit=1000"
    page = ask(url, path)
    same(len(page["items"]), pushed["num_records"], "records on the server")
    for record in page["items"]:
        given = {question: one["value"] for response in record["responses"] for question, one in response["values"].items()}
        same(given, said.get(record["external_id"], {}), "responses on the server")
        assert len(record["suggestions"]) >= 2 and all(one["agent"] for one in record["suggestions"])
    file = folder.parent / f"{name}.json"
    file.write_text(json.dumps(page))
    back = pairwright(program, "import", run, "--argilla", file, "--users", users, "--json")
    same((back["num_new"], back["num_known"], back["left_out"]), (0, len(said), {}), "responses that come back")
    print(f"server: {pushed['num_records']} records pushed as `{name}` and not doubled, {len(said)} responses there and back")
    loaded = rg.Dataset.from_disk(str(folder), name=f"{name} from disk", workspace="argilla")
    page = ask(url, f"datasets/{loaded.id}/records?include=responses,suggestions&limit=1000")
    same(len(page["items"]), pushed["num_records"], "records that the package loaded")
    same(sum(len(record["responses"]) for record in page["items"]), len(said), "responses that the package loaded")
    same({record["external_id"] for record in page["items"]}, {record["id"] for record in json.loads((folder / "records.json").read_text())}, "ids")
    print(f"server: the package loaded the folder, {len(page['items'])} records with {len(said)} responses")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the pairwright program")
    parser.add_argument("--server-python", help="the Python that has argilla-server")
    parser.add_argument("--port", type=int, default=6911)
    options = parser.parse_args()
    import argilla as rg

    print(f"argilla {rg.__version__}")
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        try:
            url = None
            if options.server_python:
                (folder / "home").mkdir()
                url, processes = serve(options.server_python, folder / "home", options.port)
                USER_OF[0] = ask(url, "me")["id"]
                print(f"argilla-server {ask(url, 'version')['version']}, SQLite, Redis, a stand-in for Elasticsearch")
            # The package's settings want a client even to be read; without a server nobody asks it anything.
            rg.Argilla._default_client = rg.Argilla(api_url=url, api_key=KEY) if url else MagicMock()
            for rank in (False, True):
                run, argilla = folder / f"run-{rank}", folder / f"argilla-{rank}"
                pairwright(options.program, "make", "--demo", "--out", run, "-q", "-n", 2 if rank else 1)
                said, users = vote(options.program, run, argilla, USER_OF[0], rank)
                check_folder(rg, options.program, run, argilla, said, users, rank)
                if url:
                    check_server(rg, options.program, run, argilla, url, said, users, rank)
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    print("nothing wrong")


if __name__ == "__main__":
    sys.exit(main())
