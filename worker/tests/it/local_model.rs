//! The local model's set-up, which has tests in its own language.

use std::path::Path;
use std::process::Command;

#[test]
fn the_tests_of_the_local_models_set_up_pass() {
    let output = Command::new("python3")
        .args(["-m", "unittest", "--quiet", "--buffer"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("local_model"))
        .output()
        .expect("Python 3");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    assert!(!report.contains("Ran 0 tests"), "{report}");
}
