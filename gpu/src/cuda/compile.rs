//! Compiling the kernels where they run: NVRTC makes PTX for the device's architecture, which is kept on disk.
//!
//! NVRTC is loaded by name where the system knows it, else from beside the libtorch in use, as PyTorch's packages lay it
//! down. A kept result that is damaged, or that the driver refuses, is made anew.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts, sys};

use super::device_error;
use crate::GpuError;

/// All kernels, as one source.
pub(super) const SOURCE: &str = concat!(
    include_str!("../../kernels/elementwise.cu"),
    include_str!("../../kernels/compress.cu"),
    include_str!("../../kernels/compress_64.cu"),
    include_str!("../../kernels/apply.cu"),
    include_str!("../../kernels/digest.cu"),
);

/// Fused operations are those that the source spells `fmaf`, and no others: results must be those of the CPU.
const OPTIONS: [&str; 2] = ["--fmad=false", "--std=c++17"];
const BUILTINS: &str = "libnvrtc-builtins.so.13.0";
const LIBRARY: &str = "libnvrtc.so.13";
/// Length of the digest that a kept result starts with.
const DIGEST_LEN: usize = 32;

/// Gives `load` the PTX for an architecture, kept or fresh.
pub(super) fn module<M>(
    index: usize,
    capability: (i32, i32),
    cache: Option<&Path>,
    load: impl Fn(&str) -> Result<M, String>,
) -> Result<M, GpuError> {
    if !load_library(&library_folders()) {
        let problem = "NVRTC 13, which compiles kernels for it, is not here: install nvidia-cuda-nvrtc beside libtorch";
        return Err(device_error(index, problem));
    }
    let architecture = format!("compute_{}{}", capability.0, capability.1);
    let kept = cache.map(|folder| folder.join(file_name(&architecture, version())));
    if let Some(module) = kept.as_deref().and_then(read_kept).and_then(|ptx| load(&ptx).ok()) {
        return Ok(module);
    }
    let ptx = compile(&architecture).map_err(|problem| device_error(index, &problem))?;
    if let Some(path) = &kept {
        keep(path, &ptx);
    }
    load(&ptx).map_err(|problem| device_error(index, &problem))
}

/// Compiles the kernels; NVRTC must be loaded.
pub(super) fn compile(architecture: &str) -> Result<String, String> {
    let mut options: Vec<String> = OPTIONS.map(str::to_owned).into();
    options.push(format!("--gpu-architecture={architecture}"));
    let ptx = compile_ptx_with_opts(SOURCE, CompileOptions { options, ..Default::default() });
    let ptx = ptx.map_err(|error| format!("NVRTC refuses the kernels: {error:?}"))?;
    Ok(ptx.to_src())
}

/// Loads NVRTC by name or from one of `folders`; false where there is none.
pub(super) fn load_library(folders: &[PathBuf]) -> bool {
    for folder in folders.iter().filter(|folder| folder.join(LIBRARY).is_file()) {
        // NVRTC looks its builtins up by name, so they come first.
        if open(&folder.join(BUILTINS)) && open(&folder.join(LIBRARY)) {
            break;
        }
    }
    // SAFETY: only tries to load a library by names that it goes by; NVRTC does nothing when it is loaded.
    unsafe { sys::is_culib_present() }
}

/// Where PyTorch's packages put NVRTC, seen from the libtorch that this process has loaded.
fn library_folders() -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let loaded = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, rest)| PathBuf::from(format!("/{rest}")));
    let torch = loaded.into_iter().find(|path| path.file_name().is_some_and(|name| name == "libtorch_cpu.so"));
    let Some(own) = torch.as_deref().and_then(Path::parent) else { return Vec::new() };
    let packages = own.join("../../nvidia");
    vec![own.to_owned(), packages.join("cu13/lib"), packages.join("cuda_nvrtc/lib")]
}

/// Keeps a library loaded, its symbols visible to those that come after it.
fn open(path: &Path) -> bool {
    const RTLD_NOW: c_int = 2;
    const RTLD_GLOBAL: c_int = 0x100;
    unsafe extern "C" {
        fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    }
    let Ok(name) = CString::new(path.as_os_str().as_encoded_bytes()) else { return false };
    // SAFETY: the name ends in a zero; the libraries are NVIDIA's, whose initialisers expect nothing.
    !unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) }.is_null()
}

/// NVRTC's version; it must be loaded.
fn version() -> (c_int, c_int) {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both outlive the call, and the library is loaded.
    let _status = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    (major, minor)
}

/// Names what a result depends on: source, options, architecture, compiler.
fn file_name(architecture: &str, (major, minor): (c_int, c_int)) -> String {
    let what = format!("{architecture} {major}.{minor} {OPTIONS:?} {SOURCE}");
    format!("kernels-{architecture}-{}.ptx", &blake3::hash(what.as_bytes()).to_hex()[..32])
}

/// A kept result, if it is whole.
fn read_kept(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let (digest, ptx) = bytes.split_at_checked(DIGEST_LEN)?;
    (blake3::hash(ptx).as_bytes() == digest).then(|| String::from_utf8(ptx.to_vec()).ok())?
}

/// Keeps a result for the next start; where that fails, the next start compiles again.
fn keep(path: &Path, ptx: &str) {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let folder = path.parent().unwrap_or(Path::new("."));
    let bytes = [blake3::hash(ptx.as_bytes()).as_bytes(), ptx.as_bytes()].concat();
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&temporary, bytes));
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        tracing::warn!(path = %path.display(), %error, "could not keep the compiled kernels");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests may unwrap")]

    use super::*;

    #[test]
    fn a_kept_result_comes_back_unless_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper").join(file_name("compute_90", (13, 0)));
        assert_eq!(read_kept(&path), None);
        keep(&path, "some PTX");
        assert_eq!(read_kept(&path).as_deref(), Some("some PTX"));
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..10], &[]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(read_kept(&path), None);
        }
        assert_ne!(file_name("compute_90", (13, 0)), file_name("compute_80", (13, 0)));
        assert_ne!(file_name("compute_90", (13, 0)), file_name("compute_90", (13, 1)));
    }

    /// NVRTC's folder among the packages that scripts/setup-python.sh fetches, if they are here.
    fn fetched() -> Option<PathBuf> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup-python.sh");
        let output = std::process::Command::new(script).arg("--where").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let packages = text.lines().find_map(|line| line.strip_prefix("PYTHONPATH="))?;
        let folder = Path::new(packages).join("nvidia/cu13/lib");
        folder.join(LIBRARY).is_file().then_some(folder)
    }

    #[test]
    fn kernels_compile_for_every_architecture_where_nvrtc_is_here() {
        let folders: Vec<PathBuf> = library_folders().into_iter().chain(fetched()).collect();
        if !load_library(&folders) {
            eprintln!("no NVRTC here: scripts/setup-python.sh fetches it");
            return;
        }
        std::thread::scope(|scope| {
            for architectures in [["compute_75", "compute_90"], ["compute_80", "compute_100"]] {
                scope.spawn(move || {
                    for architecture in architectures {
                        let ptx = compile(architecture).unwrap();
                        for name in super::super::engine::KERNELS {
                            assert!(ptx.contains(&format!(".entry {name}(")), "{architecture} {name}");
                        }
                    }
                });
            }
        });
    }
}
