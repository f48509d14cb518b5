//! The binaries themselves: started, stopped and killed as operators and
//! machines do it, and then what they left behind.

mod support;

mod agents;
mod backup;
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
mod pdf;
mod restart;
mod script;
mod secrets;
mod settings;
mod settings_docs;
mod start;
mod stop;
mod traces;
mod upgrade;
