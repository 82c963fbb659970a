//! Which Pod a named network namespace is. Pure.
//!
//! `<namespace>_<pod>`, or `<pod>` alone for the Kubernetes namespace `default`. Kubernetes names hold no underscore
//! (RFC 1123 labels and subdomains), so there is one reading only.

/// Longest namespace name (an RFC 1123 label).
const NAMESPACE_MAX: usize = 63;
/// Longest Pod name (an RFC 1123 subdomain).
const POD_MAX: usize = 253;

/// The (namespace, name) of the Pod behind a file name, or `None` where the file is no Pod: it lacks the prefix, or what
/// follows the prefix is not what Kubernetes accepts as names.
pub fn pod_of(file_name: &str, prefix: &str) -> Option<(String, String)> {
    let rest = file_name.strip_prefix(prefix)?;
    let (namespace, pod) = rest.split_once('_').unwrap_or(("default", rest));
    let valid =
        namespace.len() <= NAMESPACE_MAX && is_label(namespace) && pod.len() <= POD_MAX && pod.split('.').all(is_label);
    valid.then(|| (namespace.to_owned(), pod.to_owned()))
}

/// Lower-case letters, digits and inner hyphens (RFC 1123 §2.1 as Kubernetes narrows it).
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(file_name: &str, prefix: &str) -> Option<String> {
        pod_of(file_name, prefix).map(|(namespace, name)| format!("{namespace}/{name}"))
    }

    #[test]
    fn the_rule_reads_each_name_one_way() {
        assert_eq!(pod("mkt_feed-0", "").as_deref(), Some("mkt/feed-0"));
        assert_eq!(pod("feed-0", "").as_deref(), Some("default/feed-0"));
        assert_eq!(pod("kube-system_web.0", "").as_deref(), Some("kube-system/web.0"));
    }

    #[test]
    fn a_prefix_selects_and_is_cut() {
        assert_eq!(pod("lab-mkt_feed-0", "lab-").as_deref(), Some("mkt/feed-0"));
        assert_eq!(pod("mkt_feed-0", "lab-"), None);
        assert_eq!(pod("lab_feed-0", "lab_").as_deref(), Some("default/feed-0"));
    }

    #[test]
    fn what_kubernetes_would_not_accept_is_no_pod() {
        for name in [
            "", "_", "a_", "_a", "a_b_c", "NODE", "a b", "-a", "a-", "a..b", "a/b", "a.b_c", "ü",
        ] {
            assert_eq!(pod(name, ""), None, "{name:?}");
        }
        assert_eq!(pod("lab-", "lab-"), None);
    }

    #[test]
    fn the_lengths_are_those_of_kubernetes() {
        let (namespace, name) = ("n".repeat(63), "p".repeat(253));
        assert!(pod(&format!("{namespace}_{name}"), "").is_some());
        assert!(pod(&format!("{namespace}n_{name}"), "").is_none());
        assert!(pod(&format!("{namespace}_{name}p"), "").is_none());
    }
}
