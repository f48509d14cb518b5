//! The worker as a whole, and its agents against stubs that speak their
//! providers' protocols.

mod agent_anthropic;
mod agent_http;
mod agent_openai;
mod agent_script;
mod local_model;
