//! Kubernetes quantities.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use super::check::Findings;

/// Notes it if `member` holds no quantity above zero.
pub(super) fn check(member: &str, text: &str, findings: &mut Findings) {
    if !is_positive(text) {
        findings.refuse(member, "must be a quantity above 0, such as 500m, 3 or 8Gi");
    }
}

const SUFFIXES: [&str; 14] =
    ["", "n", "u", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi"];

fn is_positive(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    SUFFIXES.contains(&suffix) && number.parse::<f64>().is_ok_and(|number| number > 0.0)
}

#[cfg(test)]
mod tests {
    use super::is_positive;

    #[test]
    fn quantities_are_told_from_other_texts() {
        for text in ["3", "0.5", "500m", "8Gi", "16G", "1k", "1Ti"] {
            assert!(is_positive(text), "{text}");
        }
        for text in ["", "0", "0Gi", "-1", "8GB", "8 Gi", "Gi", "1.2.3", "1e3x", "nan"] {
            assert!(!is_positive(text), "{text}");
        }
    }
}
