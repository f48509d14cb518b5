"""Schemathesis hooks: the users who send the requests, and what makes a request valid besides its
schema."""

import json
import os
import re
import subprocess
import uuid

import requests
import schemathesis

PASSWORD = "correct horse battery"
ENDS_SESSIONS = ("logout", "revoke_session", "revoke_other_sessions", "change_password", "delete_me")


def sign_up(username):
    url = os.environ["API"] + "/users/register"
    answer = requests.post(url, json={"username": username, "password": PASSWORD}, timeout=10)
    answer.raise_for_status()
    pair = answer.json()
    return {**pair["user"], "authorization": f"Bearer {pair['access_token']}"}


# Ann and Bob must not see each other's data. Root is an admin.
regulars = [sign_up(username) for username in ("ann", "bob", "root")]
folder = os.environ["FOLDER"]
subprocess.run([os.environ["PROGRAM"], "make-admin", "root"], cwd=folder, env={"DATA_DIR": "."}, check=True)
with open(f"{folder}/users.json", "w") as users:
    header = lambda user: {"name": "Authorization", "value": user["authorization"]}
    auth = [{"name": user["username"], "fixedHeaders": [header(user)]} for user in regulars]
    json.dump({"auth": auth}, users)

# The user whom destructive requests are about instead; None once it is used up.
stand_in = None


def name(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def before_call(_context, case, _kwargs):
    global stand_in
    stand_in = stand_in or sign_up(uuid.uuid4().hex)
    if "users" in case.operation.tags and "Authorization" in case.headers:
        case.headers["Authorization"] = stand_in["authorization"]
    if name(case) == "update_user" and case.path_parameters.get("id") in [user["id"] for user in regulars]:
        case.path_parameters["id"] = stand_in["id"]
    # As a stream it would come for as long as the job takes.
    if name(case) == "get_job_events":
        case.headers["Accept"] = "application/json"
    # A job may stay as it is for long.
    if isinstance(wait := case.query.get("wait"), int) and 0 < wait <= 60:
        case.query["wait"] = min(wait, 3)
    if case.headers.get("Prefer", "").startswith("wait="):
        case.headers["Prefer"] = "wait=3"
    stay_at_home(case.body)
    if case.meta and case.meta.generation.mode.is_positive:
        make_good(case)


ADDRESS = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[!-~]*)?")


def stay_at_home(body):
    """Sources are read from nowhere: what would be fetched is refused, as every private address."""
    sources = body.get("sources") if isinstance(body, dict) else None
    for source in sources if isinstance(sources, list) else []:
        url = source.get("url") if isinstance(source, dict) else None
        if isinstance(url, str) and ADDRESS.fullmatch(url):
            source["url"] = "http://localhost/"


@schemathesis.hook
def after_call(_context, case, response):
    global stand_in
    if name(case) in ENDS_SESSIONS and response.status_code == 204 or name(case) == "update_user":
        stand_in = None
    # A paused queue would stop all jobs.
    if name(case) == "pause_queue" and response.status_code == 200:
        url = os.environ["API"] + "/admin/queue/resume"
        requests.post(url, headers=case.headers, timeout=10).raise_for_status()


def make_good(case):
    # A valid cursor can only come from a link.
    if case.meta.phase.name != "stateful":
        case.query.pop("cursor", None)
    # A random version would not be the post's.
    case.headers.pop("If-Match", None)
    # Each valid request has a key of its own. Invalid ones may share keys.
    if key := case.headers.get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = (str(uuid.uuid4()) + key)[:255]
    if not isinstance(case.body, dict):
        return
    # Where there are no sources it is refused, and where there are some it is the default.
    if isinstance(options := case.body.get("options"), dict) and options.get("research") == "sources":
        del options["research"]
    # A new password must not be a common one, and the current one must be right.
    for field in ("password", "new_password"):
        if field in case.body:
            case.body[field] = ("~" + case.body[field])[:128]
    if name(case) in ("login", "delete_me"):
        case.body["password"] = PASSWORD
    if name(case) == "login":
        case.body["username"] = stand_in["username"]
    if name(case) == "change_password":
        case.body["current_password"] = PASSWORD
    # A key must end in the future, if it does.
    if case.body.get("expires_at"):
        case.body["expires_at"] = "2100-01-01T00:00:00Z"
    # The model must exist.
    if options := case.body.get("options"):
        options["model"] = "one"
