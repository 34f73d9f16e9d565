//! Telling files of other kinds apart from safetensors files.

use std::fmt;
use std::path::Path;

/// A kind of file that people have where a safetensors file is expected. Prints as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// What `torch.save` writes: Python objects in a ZIP archive, or bare.
    Pickle,
    /// A network in ONNX.
    Onnx,
    /// NumPy arrays, one or an archive of them.
    Numpy,
    /// HDF5, as Keras writes it.
    Hdf5,
    /// A web page, often an error or a login page that was saved in place of the file.
    Html,
    /// A pointer of Git LFS to a file that was not fetched.
    LfsPointer,
    /// A packed file.
    Gzip,
    /// A ZIP archive of other contents.
    Zip,
    /// GGUF, a format of quantized language models.
    Gguf,
    /// A file without any bytes.
    Empty,
    /// An index of a model in several files.
    Index,
}

impl FileKind {
    /// Returns the kind of a file by its first bytes, if it is one of these; by its name where bytes leave it open.
    pub(crate) fn of(bytes: &[u8], name: &Path) -> Option<Self> {
        // The length of the header, far below 2^32, and its brace; a length may look like the first bytes of anything.
        if matches!(bytes, [_, _, _, _, 0, 0, 0, 0, b'{', ..]) {
            return None;
        }
        let text = bytes.trim_ascii_start();
        let begins =
            |start: &[u8]| text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start));
        let extension = name.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        let named = |extensions: &[&str]| extension.as_deref().is_some_and(|own| extensions.contains(&own));
        // Names of an archive's members are not packed.
        let holds =
            |part: &[u8]| bytes[..bytes.len().min(1 << 12)].windows(part.len()).any(|found| found == part);
        if bytes.is_empty() {
            return Some(Self::Empty);
        }
        if bytes.starts_with(b"PK\x03\x04") {
            return Some(match () {
                () if holds(b"data.pkl") || holds(b"/version") || named(&["pt", "pth", "ckpt"]) => {
                    Self::Pickle
                }
                () if holds(b".npy") || named(&["npz"]) => Self::Numpy,
                () => Self::Zip,
            });
        }
        let magics: [(&[u8], Self); 5] = [
            (b"\x1f\x8b", Self::Gzip),
            (b"\x89HDF\r\n\x1a\n", Self::Hdf5),
            (b"\x93NUMPY", Self::Numpy),
            (b"version https://git-lfs", Self::LfsPointer),
            (b"GGUF", Self::Gguf),
        ];
        if let Some((_, kind)) = magics.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return Some(*kind);
        }
        if ["<!doctype", "<html", "<head", "<?xml"].iter().any(|start| begins(start.as_bytes())) {
            return Some(Self::Html);
        }
        if begins(b"{") && (holds(b"\"weight_map\"") || named(&["json"])) {
            return Some(Self::Index);
        }
        // The opcode of a protocol from 2 to 5, or a number of torch's old format.
        if matches!(bytes, [0x80, 2..=5, ..]) {
            return Some(Self::Pickle);
        }
        // The field ir_version, then the producer's name, a graph or opsets.
        let onnx = matches!(bytes, [8, 1..=15, 18 | 58 | 66, ..]);
        (onnx || named(&["onnx"])).then_some(Self::Onnx)
    }

    /// Returns what can be done about a file of this kind, in a sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Pickle => {
                "in Python, load it and save its state_dict with safetensors.torch.save_file(model.state_dict(), ...)"
            }
            Self::Onnx => "import it first, which makes a model file of it",
            Self::Numpy => {
                "in Python, save the arrays under the names of the layers with safetensors.numpy.save_file"
            }
            Self::Hdf5 => {
                "in Python, save the arrays under the names of the layers with safetensors.numpy.save_file, or export \
                 the model to ONNX"
            }
            Self::Html => "fetch the file itself: this is a page about it",
            Self::LfsPointer => "run `git lfs pull` in its repository to fetch the file itself",
            Self::Gzip => "unpack it with gunzip first",
            Self::Zip => "unpack it first",
            Self::Gguf => "it holds a quantized language model, which cannot run here",
            Self::Empty => "fetch or write it again",
            Self::Index => {
                "give it the name it had, ending in .safetensors.index.json, beside the files it lists"
            }
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pickle => "a PyTorch file of Python objects (pickle)",
            Self::Onnx => "an ONNX model",
            Self::Numpy => "NumPy arrays (.npy or .npz)",
            Self::Hdf5 => "an HDF5 file",
            Self::Html => "a web page (HTML)",
            Self::LfsPointer => "a Git LFS pointer",
            Self::Gzip => "a gzip file",
            Self::Zip => "a ZIP archive",
            Self::Gguf => "a GGUF file",
            Self::Empty => "an empty file",
            Self::Index => "a JSON file",
        })
    }
}
