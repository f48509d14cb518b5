"""Who makes the requests, and what makes one good besides its schema."""

import json
import os
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


# Ann and Bob must not see each other's things. What they may not do falls to Root.
regulars = [sign_up(username) for username in ("ann", "bob", "root")]
folder = os.environ["FOLDER"]
subprocess.run([os.environ["PROGRAM"], "make-admin", "root"], cwd=folder, env={"DATA_DIR": "."}, check=True)
with open(f"{folder}/users.json", "w") as users:
    header = lambda user: {"name": "Authorization", "value": user["authorization"]}
    auth = [{"name": user["username"], "fixedHeaders": [header(user)]} for user in regulars]
    json.dump({"auth": auth}, users)

# Whoever comes to harm in their place; None after that.
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
    if case.meta and case.meta.generation.mode.is_positive:
        make_good(case)


@schemathesis.hook
def after_call(_context, case, response):
    global stand_in
    if name(case) in ENDS_SESSIONS and response.status_code == 204 or name(case) == "update_user":
        stand_in = None
    # Nobody waits for a queue that is paused.
    if name(case) == "pause_queue" and response.status_code == 200:
        url = os.environ["API"] + "/admin/queue/resume"
        requests.post(url, headers=case.headers, timeout=10).raise_for_status()


def make_good(case):
    # A cursor comes from a link, if it is to be of use.
    if case.meta.phase.name != "stateful":
        case.query.pop("cursor", None)
    # The post has such a version.
    case.headers.pop("If-Match", None)
    # Each request has a key of its own. Those that are not good have any, and the same ones.
    if key := case.headers.get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = (str(uuid.uuid4()) + key)[:255]
    if not isinstance(case.body, dict):
        return
    # One's own password is the right one, and a new one none of the commonest.
    for field in ("password", "new_password"):
        if field in case.body:
            case.body[field] = ("~" + case.body[field])[:128]
    if name(case) in ("login", "delete_me"):
        case.body["password"] = PASSWORD
    if name(case) == "login":
        case.body["username"] = stand_in["username"]
    if name(case) == "change_password":
        case.body["current_password"] = PASSWORD
    # There is such a model.
    if options := case.body.get("options"):
        options["model"] = "one"
