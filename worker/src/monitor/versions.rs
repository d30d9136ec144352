//! The driver comes in two pieces, a kernel module and libraries, and a package upgrade replaces one of them under the
//! other: what runs goes on, and nothing new starts until a reboot.

use std::path::{Path, PathBuf};

/// Where the kernel module tells its version.
pub(super) const KERNEL_MODULE: &str = "/proc/driver/nvidia/version";
pub(super) const LIBRARY: &str = "libnvidia-ml.so.1";

/// The two pieces' versions, as far as they can be known without starting the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    /// Of the module that the kernel runs.
    pub(super) kernel: Option<String>,
    /// Of the library's file: an installed driver's name ends with it.
    pub(super) library: Option<String>,
    /// The name by which the library is found: a link.
    link: Option<PathBuf>,
}

impl Versions {
    pub(super) fn look(kernel_module: &Path, folder: Option<&Path>) -> Versions {
        let said = std::fs::read_to_string(kernel_module).unwrap_or_default();
        let link = folder.map_or_else(|| find_library(LIBRARY), |folder| Some(folder.join(LIBRARY)));
        Versions { kernel: kernel_in(&said), library: None, link }.look_again()
    }

    /// The module stays as it is while it runs; the library's file may have been replaced.
    pub(super) fn look_again(&self) -> Versions {
        let file = self.link.as_ref().and_then(|link| link.canonicalize().ok());
        Versions { library: file.and_then(|file| library_in(&file)), ..self.clone() }
    }

    /// Both are known and differ.
    pub(super) fn differ(&self) -> bool {
        matches!((&self.kernel, &self.library), (Some(kernel), Some(library)) if kernel != library)
    }

    /// NVML's version is that of the driver that it came with, behind a number of its own.
    pub(super) fn differ_from_nvml(&self, nvml: &str) -> bool {
        let came_with = nvml.split_once('.').map(|(_, driver)| driver).and_then(version);
        matches!((&self.kernel, came_with), (Some(kernel), Some(library)) if *kernel != library)
    }

    /// For the operator. `nvml`: NVML's own version, where it told one.
    pub(super) fn sentence(&self, nvml: Option<&str>) -> String {
        let name = |version: Option<&str>| version.unwrap_or("another version").to_owned();
        let library = nvml.and_then(|nvml| nvml.split_once('.').map(|(_, driver)| driver)).or(self.library.as_deref());
        format!(
            "the NVIDIA driver in the kernel is {} and its libraries are {} (a package was upgraded): what runs goes on, \
             nothing new starts on a GPU: reboot this machine",
            name(self.kernel.as_deref()),
            name(library)
        )
    }
}

/// Where the loader finds a library, in its order: LD_LIBRARY_PATH, its cache, the default folders.
fn find_library(name: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = std::env::split_paths(&asked).map(|folder| folder.join(name));
    let cached = std::fs::read("/etc/ld.so.cache").ok().and_then(|cache| cached_path(&cache, name));
    let defaults = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    let usual = defaults.iter().map(|folder| Path::new(folder).join(name));
    named.chain(cached).chain(usual).find(|path| path.exists())
}

/// The cache keeps zero-terminated strings: paths among them end in "/" and the library's name.
fn cached_path(cache: &[u8], name: &str) -> Option<PathBuf> {
    cache
        .split(|b| *b == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .find(|text| text.starts_with('/') && text.ends_with(&format!("/{name}")))
        .map(PathBuf::from)
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 …`
fn kernel_in(text: &str) -> Option<String> {
    text.lines().next()?.split_whitespace().find_map(version)
}

/// `libnvidia-ml.so.535.129.03`
fn library_in(file: &Path) -> Option<String> {
    file.file_name()?.to_str()?.strip_prefix("libnvidia-ml.so.").and_then(version)
}

/// Two or three numbers with dots between.
fn version(word: &str) -> Option<String> {
    let fields: Vec<&str> = word.split('.').collect();
    let number = |field: &&str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    ((2..=3).contains(&fields.len()) && fields.iter().all(number)).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_s_version_is_found_in_what_both_kinds_of_module_say() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        assert_eq!(kernel_in(closed).as_deref(), Some("535.129.03"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build  (dvs-builder)  Mon Jun  2\n";
        assert_eq!(kernel_in(open).as_deref(), Some("570.158.01"));
        assert_eq!(kernel_in(""), None);
    }

    #[test]
    fn versions_differ_only_where_both_are_known() {
        let versions = |kernel: Option<&str>, library: Option<&str>| Versions {
            kernel: kernel.map(str::to_owned),
            library: library.map(str::to_owned),
            link: None,
        };
        assert!(versions(Some("535.129.03"), Some("535.161.07")).differ());
        assert!(!versions(Some("535.129.03"), Some("535.129.03")).differ());
        assert!(!versions(None, Some("535.161.07")).differ() && !versions(Some("535.129.03"), None).differ());
        let kernel = versions(Some("535.129.03"), None);
        assert!(kernel.differ_from_nvml("12.535.161.07") && !kernel.differ_from_nvml("12.535.129.03"));
        assert!(!kernel.differ_from_nvml("odd"));
        let said = kernel.sentence(Some("12.535.161.07"));
        assert!(said.contains("535.129.03") && said.contains("535.161.07") && said.contains("reboot"), "{said}");
        assert_eq!(library_in(Path::new("/usr/lib/libnvidia-ml.so.550.54.14")).as_deref(), Some("550.54.14"));
        assert_eq!(library_in(Path::new("/x/librung_double_ml.so")), None);
    }

    #[test]
    fn a_path_is_found_among_the_cache_s_strings() {
        let cache = b"glibc-ld.so.cache1.1\0libx.so.1\0/usr/lib/x/libx.so.1\0/usr/lib/x/libxy.so\0";
        assert_eq!(cached_path(cache, "libx.so.1"), Some(PathBuf::from("/usr/lib/x/libx.so.1")));
        assert_eq!(cached_path(cache, "libx.so.2"), None);
    }
}
