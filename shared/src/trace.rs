//! Traces of one request across processes, as W3C's Trace Context has them.

/// The trace that a `traceparent` belongs to; None if it can't be read to the
/// letter of its version 00. <https://www.w3.org/TR/trace-context/>
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else {
        return None;
    };
    let lengths = (trace.len(), parent.len(), flags.len());
    let is_sane = version == "00" && lengths == (32, 16, 2) && parts.iter().all(hex);
    let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
    (is_sane && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_sane_traceparent_names_its_trace() {
        for flags in ["00", "01", "ff"] {
            let sane = format!("00-{TRACE}-{PARENT}-{flags}");
            assert_eq!(trace_id(&sane), Some(TRACE));
        }
    }

    #[test]
    fn an_insane_traceparent_is_none() {
        let zeros = "0".repeat(32);
        let insane = [
            String::new(),
            "---".to_owned(),
            format!("01-{TRACE}-{PARENT}-01"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}0-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{}g-01", &PARENT[1..]),
            format!("00-{}é-{PARENT}-01", &TRACE[2..]),
        ];
        for insane in insane {
            assert_eq!(trace_id(&insane), None, "{insane}");
        }
    }
}
