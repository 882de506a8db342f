//! `parse`: parses lines about modules that the kernel rejects (signature, kernel version, SELinux).
//!
//! Source: `kernel/module/signing.c`, `kernel/module/version.c` and `security/lockdown/lockdown.c` of the kernel, and the
//! access vector cache of SELinux. Limits: the line about a rejected signature does not contain the name of the module,
//! so it only counts if the nvidia module is not loaded.

use crate::facts::kernel_log::KernelEventKind as Kind;

use crate::kernel_log::line::Line;
use crate::kernel_log::scan::{between, word_after};

/// Returns whether a text may be a line about a module that the kernel rejected.
pub(super) fn is_of_module(text: &str) -> bool {
    text.starts_with("Loading of ") && rejected(text).is_some()
        || text.starts_with("Lockdown: ") && text.contains("unsigned module")
        || text.starts_with("nvidia: ") && !text.starts_with("nvidia: probe of ")
        || text.starts_with("audit: type=1400 ") && text.contains("{ module_load }")
}

pub(super) fn parse(text: &str) -> Option<Line> {
    let mut line = Line::of(Kind::ModuleRefused);
    let reason = if let Some(what) = rejected(text) {
        line.put("reason", what);
        "unsigned"
    } else if text.starts_with("Lockdown: ") && text.contains("is restricted") {
        line.put_some("program", between(text, "Lockdown: ", ":"));
        "lockdown"
    } else if let Some(rest) = text.strip_prefix("nvidia: disagrees about version of symbol ") {
        line.put("symbol", rest);
        "symbol_version"
    } else if let Some(rest) = text.strip_prefix("nvidia: Unknown symbol ") {
        line.put_some("symbol", rest.split_whitespace().next());
        "unknown_symbol"
    } else if text.starts_with("nvidia: version magic '") {
        line.put_some("module_kernel", between(text, "version magic '", " "));
        line.put_some("running_kernel", between(text, "should be '", " "));
        "version_magic"
    } else if text.starts_with("audit: ") && is_denied(text) {
        line.put_some("program", between(text, "comm=\"", "\""));
        line.put_some("path", between(text, "path=\"", "\""));
        line.put_some("context", word_after(text, "scontext="));
        "selinux"
    } else {
        return None;
    };
    line.sub_code = Some(reason.to_owned());
    Some(line)
}

/// Returns what was rejected, e.g. `unsigned module` in `Loading of unsigned module is rejected`.
fn rejected(text: &str) -> Option<&str> {
    let named = text.strip_prefix("nvidia: loading of ");
    named.or_else(|| text.strip_prefix("Loading of "))?.trim_end().strip_suffix(" is rejected")
}

fn is_denied(text: &str) -> bool {
    text.contains("avc:") && text.contains("denied  { module_load }") && !text.contains("permissive=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_log::line::Parsed;
    use crate::kernel_log::line_parser::parse;

    fn sub_code(text: &str) -> Option<String> {
        match parse(text)? {
            Parsed::Event(line) if line.kind == Kind::ModuleRefused => line.sub_code,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_way_to_refuse_a_module_is_told() {
        for (text, reason) in [
            ("Loading of unsigned module is rejected", "unsigned"),
            ("Loading of module with unavailable key is rejected", "unsigned"),
            ("Loading of module with unsupported crypto is rejected", "unsigned"),
            ("Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7", "lockdown"),
            ("nvidia: disagrees about version of symbol module_layout", "symbol_version"),
            ("nvidia: Unknown symbol swiotlb_map_sg_attrs (err -22)", "unknown_symbol"),
            (
                "nvidia: version magic '6.5.0-15-generic SMP preempt mod_unload ' should be '6.8.0-60-generic SMP preempt mod_unload '",
                "version_magic",
            ),
            (
                "audit: type=1400 audit(1763688000.123:45): avc:  denied  { module_load } for  pid=71 comm=\"modprobe\" path=\"/usr/lib/modules/x/nvidia.ko\" dev=\"overlay\" ino=9 scontext=system_u:system_r:container_t:s0 tcontext=x tclass=system permissive=0",
                "selinux",
            ),
        ] {
            assert_eq!(sub_code(text).as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn lines_that_look_alike_refuse_no_module() {
        for text in [
            "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
            "nvidia: loading out-of-tree module taints kernel.",
            "Lockdown: Xorg: raw io port access is restricted; see man kernel_lockdown.7",
            "Loading of firmware is slow",
            "audit: type=1400 audit(1.1:2): avc:  denied  { module_load } for  pid=71 comm=\"modprobe\" permissive=1",
            "audit: type=1400 audit(1.1:2): apparmor=\"DENIED\" comm=\"{ module_load }\"",
            "nvidia_uvm: disagrees about version of symbol module_layout",
        ] {
            assert_eq!(sub_code(text), None, "{text}");
        }
    }
}
