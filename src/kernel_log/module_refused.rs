//! `parse`: parses lines about modules that the kernel rejects (signature, kernel version, SELinux, blocked by name).
//! `is_of_module`: a fast check before `parse`.
//!
//! Source: `kernel/module/signing.c`, `kernel/module/version.c`, `kernel/module/main.c` and
//! `security/lockdown/lockdown.c` of the kernel, and the access vector cache of SELinux. Limits: the line about a
//! rejected signature does not contain the name of the module, so this line counts only if the nvidia module is not
//! loaded.

use crate::facts::kernel_log::KernelEventKind as Kind;

use crate::kernel_log::line::Line;
use crate::kernel_log::scan::{between, word_after};

/// Returns whether a text may be a line about a module that the kernel rejected.
pub(super) fn is_of_module(text: &str) -> bool {
    text.starts_with("Loading of ") && rejected(text).is_some()
        || text.starts_with("Lockdown: ") && text.contains("unsigned module")
        || text.starts_with("nvidia: ") && !text.starts_with("nvidia: probe of ")
        || OTHER_MODULES.iter().any(|module| of_module(text, module).is_some())
        || blocked(text).is_some()
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
    } else if let Some(module) = blocked(text) {
        if module != "nvidia" {
            line.put("module", module);
        }
        "blocked"
    } else if let Some((module, rest, reason)) = of_symbol(text) {
        if module != "nvidia" {
            line.put("module", module);
        }
        line.put_some("symbol", rest.split_whitespace().next());
        reason
    } else if let Some((module, _)) = text.split_once(": version magic '") {
        if module != "nvidia" {
            line.put("module", module);
        }
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

/// Modules that need the module `nvidia`, and modules of RDMA. Lines about nvidia-peermem are of another family.
const OTHER_MODULES: [&str; 12] = [
    "nvidia_uvm",
    "nvidia_modeset",
    "nvidia_drm",
    "nvidia_fs",
    "gdrdrv",
    "mlx5_core",
    "mlx5_ib",
    "ib_core",
    "ib_uverbs",
    "ib_umad",
    "rdma_cm",
    "rdma_ucm",
];

/// Returns the module that the boot parameter `module_blacklist` blocks, if it is one of these modules.
fn blocked(text: &str) -> Option<&str> {
    let module = between(text, "Module ", " is blacklisted").filter(|_| text.starts_with("Module "))?;
    (module == "nvidia" || OTHER_MODULES.contains(&module)).then_some(module)
}

/// The kernel's texts about a module that does not fit the kernel or the loaded modules, each with the reason.
const MISFITS: [(&str, &str); 2] =
    [("disagrees about version of symbol ", "symbol_version"), ("Unknown symbol ", "unknown_symbol")];

/// Returns the text after the name of the module, if it is about a module that does not fit.
fn of_module<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(module)?.strip_prefix(": ")?;
    let is_misfit = rest.starts_with("version magic '") || MISFITS.iter().any(|(words, _)| rest.starts_with(words));
    is_misfit.then_some(rest)
}

/// Returns the module, the symbol that does not fit, and the reason.
fn of_symbol(text: &str) -> Option<(&str, &str, &'static str)> {
    let (module, rest) = text.split_once(": ")?;
    MISFITS.iter().find_map(|(words, reason)| Some((module, rest.strip_prefix(words)?, *reason)))
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
            ("nvidia_uvm: disagrees about version of symbol module_layout", "symbol_version"),
            ("gdrdrv: Unknown symbol nvidia_p2p_get_pages (err -2)", "unknown_symbol"),
            ("mlx5_ib: disagrees about version of symbol ib_register_device", "symbol_version"),
            ("Module nvidia is blacklisted", "blocked"),
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
            "nvidia_uvm: loading out-of-tree module taints kernel.",
            "nfs: Unknown symbol nvidia (err -2)",
            "Module pcspkr is blacklisted",
        ] {
            assert_eq!(sub_code(text), None, "{text}");
        }
    }
}
