//! A clock that is wrong, or is set while processes run.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The clock of those processes that get its environment.
pub(crate) struct SkewedClock {
    shim: PathBuf,
    skew: PathBuf,
}

impl SkewedClock {
    /// One that is off by so many seconds. Its files are in `folder`.
    pub(crate) fn new(folder: &Path, name: &str, seconds: i64) -> SkewedClock {
        let shim = folder.join("skewed_clock.so");
        if !shim.exists() {
            let source = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/processes/support/skewed_clock.c"
            );
            // Rust needs it anyway, to link.
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", source, "-ldl", "-o"]);
            let compiled = compiler.arg(&shim).output().unwrap();
            assert!(compiled.status.success(), "{compiled:?}");
        }
        let skew = folder.join(format!("{name}.skew"));
        let clock = SkewedClock { shim, skew };
        clock.set(seconds);
        clock
    }

    /// Sets it, now, for all processes that have it.
    pub(crate) fn set(&self, seconds: i64) {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true);
        let file = file.open(&self.skew).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// What gives it to a process.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.shim)),
            ("SKEW_FILE", text(&self.skew)),
        ]
    }
}
