//! The machine that runs kernels: `kernels/*.cu` compiled for the CPU with the system's C++ compiler, once per state of the sources, and
//! launched by name. Knows arguments; knows no kernel.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// `pairwright_host_launch` of kernels/host.cpp.
type HostLaunch =
    unsafe extern "C" fn(*const c_char, *const c_uint, *const c_uint, usize, *mut *mut c_void, c_uint) -> c_int;

/// Numbers whose memory kernels may be given.
pub trait Number: Copy {}
impl Number for f32 {}
impl Number for f64 {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for i32 {}
impl Number for u64 {}
impl Number for half::bf16 {}
impl Number for half::f16 {}

/// A launch of the kernel `name`; arguments in the order of its parameters.
pub struct Launch<'a> {
    name: &'a str,
    grid: [u32; 3],
    block: u32,
    shared_bytes: usize,
    /// Each argument's bits, in a word of its own.
    arguments: Vec<u64>,
    memory: std::marker::PhantomData<&'a mut ()>,
}

impl<'a> Launch<'a> {
    /// A grid of `grid` blocks of `block` threads.
    pub fn new(name: &'a str, grid: [u32; 3], block: u32) -> Self {
        Self { name, grid, block, shared_bytes: 0, arguments: Vec::new(), memory: std::marker::PhantomData }
    }

    /// With that much dynamic shared memory.
    pub fn shared(self, shared_bytes: usize) -> Self {
        Self { shared_bytes, ..self }
    }

    /// An address to read from.
    pub fn input<T: Number>(self, memory: &'a [T]) -> Self {
        self.word(memory.as_ptr() as u64)
    }

    /// An address to read from, or none.
    pub fn maybe<T: Number>(self, memory: Option<&'a [T]>) -> Self {
        self.word(memory.map_or(0, |memory| memory.as_ptr() as u64))
    }

    /// An address to write to.
    pub fn output<T: Number>(self, memory: &'a mut [T]) -> Self {
        self.word(memory.as_mut_ptr() as u64)
    }

    /// No address.
    pub fn null(self) -> Self {
        self.word(0)
    }

    /// A whole number of 32 bits, signed or not.
    pub fn int(self, value: usize) -> Self {
        self.word(u64::from(u32::try_from(value).expect("a number of 32 bits")))
    }

    /// A number of 32 bits.
    pub fn float(self, value: f32) -> Self {
        self.word(u64::from(value.to_bits()))
    }

    /// An argument's bits.
    pub fn word(mut self, bits: u64) -> Self {
        self.arguments.push(bits);
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) {
        let name = CString::new(self.name).expect("a name without zeros");
        let mut addresses: Vec<*mut c_void> = self.arguments.iter_mut().map(|word| (&raw mut *word).cast()).collect();
        // SAFETY: the function is that of kernels/host.cpp; each argument is a word as wide as any parameter, and the memory that words
        // point to is borrowed for as long as this launch lives. Whether a kernel stays within it is what the tests, and one run of
        // them under sanitizers, find out.
        let known = unsafe {
            (library().launch)(
                name.as_ptr(),
                self.grid.as_ptr(),
                [self.block, 1, 1].as_ptr(),
                self.shared_bytes,
                addresses.as_mut_ptr(),
                2,
            )
        };
        assert_eq!(known, 1, "there is no kernel {}", self.name);
    }
}

struct Library {
    launch: HostLaunch,
    /// What `launch` lies in.
    _library: libloading::Library,
}

/// The compiled kernels.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = build();
        // SAFETY: the library was built from kernels/; what it runs when it is opened enters kernels into a table.
        unsafe {
            let library = libloading::Library::new(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let launch = *library.get::<HostLaunch>(b"pairwright_host_launch").expect("the function of host.cpp");
            Library { launch, _library: library }
        }
    })
}

/// Compiles the kernels, unless that was done with these sources; `CXX` names another compiler, `CXXFLAGS` further flags.
fn build() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let more = std::env::var("CXXFLAGS").unwrap_or_default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&sources)
        .expect("the folder of kernels")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.retain(|file| {
        file.extension().is_some_and(|end| ["cu", "cuh", "cpp", "hpp"].iter().any(|known| end == *known))
    });
    files.sort();
    let mut hasher = DefaultHasher::new();
    (&compiler, &more).hash(&mut hasher);
    files.iter().for_each(|file| std::fs::read(file).expect("a source").hash(&mut hasher));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernels-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&folder).expect("a folder for objects");
    let library = folder.join("kernels.so");
    // Tests are processes of their own: one compiles, the others wait.
    let lock = std::fs::File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    if library.exists() {
        return library;
    }
    let flags = "-std=c++17 -O2 -fPIC -pthread -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function";
    let compile = |file: &PathBuf| {
        let object = folder.join(file.file_name().expect("a name")).with_extension("o");
        let mut command = Command::new(&compiler);
        command.env_remove("LD_PRELOAD"); // a sanitizer that is there for the kernels
        command.args(flags.split(' ')).args(more.split_whitespace()).arg("-include").arg(sources.join("host.hpp"));
        (command.args(["-x", "c++", "-c"]).arg(file).arg("-o").arg(&object).spawn(), object)
    };
    let units = files.iter().filter(|file| file.extension().is_some_and(|end| end == "cu" || end == "cpp"));
    let running: Vec<_> = units.map(compile).collect();
    let mut objects = Vec::new();
    for (child, object) in running {
        let mut child =
            child.unwrap_or_else(|error| panic!("the kernels' tests need a C++ compiler: {compiler}: {error}"));
        assert!(child.wait().expect("the compiler's end").success(), "{} was not compiled", object.display());
        objects.push(object);
    }
    let part = folder.join("kernels.part");
    let mut linker = Command::new(&compiler);
    linker.env_remove("LD_PRELOAD");
    linker.args(["-shared", "-pthread"]).args(more.split_whitespace()).args(&objects).arg("-o").arg(&part);
    assert!(linker.status().expect("the linker").success(), "the kernels were not linked");
    std::fs::rename(&part, &library).expect("the library's name");
    library
}
