//! The binaries themselves: started, stopped and killed as operators and
//! machines do it, and then what they left behind.

#[path = "../../../worker/tests/it/stub.rs"]
#[allow(dead_code, reason = "the agents' own tests use the rest")]
mod stub;
#[path = "../../../worker/tests/it/stub_openai.rs"]
#[allow(dead_code, reason = "the agents' own tests use the rest")]
mod stub_openai;
#[path = "../it/test_database.rs"]
#[allow(dead_code, reason = "the tests in `it` use the rest")]
mod test_database;

mod client;
mod cluster;
mod collector;
mod cuttable_proxy;
mod process;
mod scripted_agent;
mod service;
mod skewed_clock;

mod agents;
mod chaos;
mod clocks;
mod commands;
mod connections;
mod init;
mod kill;
mod load;
mod login_throttle;
mod logs;
mod metrics;
mod restart;
mod script;
mod secrets;
mod settings;
mod start;
mod stop;
mod traces;
mod upgrade;
