//! The API as a whole, with the real worker, the real queue, and an agent that
//! is a stub at the end of a real connection.

mod support;

mod admin;
mod admin_jobs;
mod admin_queue;
mod admin_users;
mod agent_failures;
mod agent_rate_limits;
mod api_keys;
mod attacks;
mod audit;
mod auth;
mod bad_input;
mod browser_sessions;
mod cancel_and_retry;
mod cleanup;
mod client_ip;
mod connections;
mod example_clients;
mod fairness;
mod health;
mod idempotency;
mod job_events;
mod job_state_machine;
mod jobs;
mod lists;
mod login_throttle;
mod long_poll;
mod metrics;
mod migrations;
mod openapi;
mod post_updates;
mod posts;
mod query_plans;
mod quota;
mod rate_limit;
mod request_ids;
mod rescue;
mod revisions;
mod sessions;
mod smoke;
mod steering;
mod transactions;
mod users;
mod ways_of_writing;
