//! The processes under test, and what they are surrounded with.

mod cluster;
mod collector;
mod cuttable_proxy;
mod process;
mod scripted_agent;
mod service;
mod skewed_clock;

pub(crate) use cluster::{Cluster, Stop};
pub(crate) use collector::{Collector, Span};
pub(crate) use cuttable_proxy::{CuttableProxy, Quality};
pub(crate) use process::{Exit, Process, binary, send, wait_until_dead};
pub(crate) use scripted_agent::{OUTLINE, ScriptedAgent, write};
pub(crate) use service::{Api, LEASE, Service};
pub(crate) use skewed_clock::SkewedClock;
