//! The app under test, and what its tests share.

pub(crate) mod deliveries;
mod test_app;

pub(crate) use test_app::{
    OUTLINE, PASSWORD, SECRET, Settings, TestApp, TestClient, TestResponse, part, text,
};
