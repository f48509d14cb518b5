//! The API as a whole, with the real worker, the real queue, and an agent that
//! is a stub at the end of a real connection.

#[path = "../../../worker/tests/it/stub.rs"]
#[allow(dead_code, reason = "the agents' own tests use the rest")]
mod stub;
#[path = "../../../worker/tests/it/stub_openai.rs"]
#[allow(dead_code, reason = "the agents' own tests use the rest")]
mod stub_openai;
mod test_app;
#[allow(dead_code, reason = "the tests of processes use the rest")]
mod test_database;

mod deliveries;

mod admin;
mod admin_jobs;
mod admin_queue;
mod admin_users;
mod attacks;
mod audit;
mod auth;
mod bad_input;
mod blogs;
mod edits;
mod fairness;
mod guard;
mod idempotency;
mod job_life;
mod jobs;
mod lifecycle;
mod lists;
mod lost_and_found;
mod metrics;
mod migrations;
mod openapi;
mod operation;
mod origin;
mod pacing;
mod plans;
mod proxies;
mod prune;
mod quota;
mod rate_limit;
mod serve;
mod sessions;
mod smoke;
mod steering;
mod transactions;
mod users;
mod waits;
