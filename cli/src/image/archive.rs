//! Archives on this side: a file, a folder or standard input in, a file or standard output out.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::CliError;

/// Bytes of a piece on its way to the daemon, and how many may wait.
const PIECE: usize = 512 << 10;
const PIECES: usize = 2;
const BAR: &str = "{spinner} {msg} [{bar:30}] {bytes:>11} / {total_bytes:<11} {elapsed}";
const SPINNER: &str = "{spinner} {msg} {bytes:>11} {elapsed}";

/// Where an archive comes from.
#[derive(Debug)]
pub(super) enum Source {
    Input,
    File(File, u64),
    /// Skopeo, which writes an archive to its standard output.
    Skopeo(Child),
    /// The files of an OCI layout: paths in it and bytes.
    Folder(PathBuf, Vec<(String, u64)>),
}

impl Source {
    /// Looks at what was given; standard input is `-`, or nothing.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            if io::stdin().is_terminal() {
                let message = "standard input is a terminal: name an archive or a folder with -i";
                return Err(CliError::Usage(message.into()));
            }
            return Ok(Self::Input);
        };
        let failed = |error| CliError::io(format!("open {}", path.display()))(error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_dir() {
            return Ok(Self::File(file, metadata.len()));
        }
        let files = layout(path).map_err(failed)?;
        if !files.iter().any(|(name, _)| name == "index.json") {
            return Err(CliError::Usage(format!("{} is no OCI layout: it has no index.json", path.display())));
        }
        Ok(Self::Folder(path.to_owned(), files))
    }

    /// What skopeo has a transport for. Names of registries are not for it: those are pulled, with the node's own settings.
    pub(super) fn skopeo(from: &str) -> Result<Self, CliError> {
        if from.starts_with("docker:") || !from.contains(':') {
            let message =
                format!("{from} is no TRANSPORT:REFERENCE that is read here; `tripod pull` is for registries");
            return Err(CliError::Usage(message));
        }
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--", from, "docker-archive:/dev/stdout"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child =
            command.spawn().map_err(CliError::io("run skopeo (install it, or save into an archive elsewhere)"))?;
        Ok(Self::Skopeo(child))
    }

    /// All bytes, if that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::Input | Self::Skopeo(_) => None,
            Self::File(_, size) => Some(*size).filter(|size| *size > 0),
            Self::Folder(_, files) => Some(files.iter().map(|(_, size)| size).sum()),
        }
    }

    /// Reads in a thread of its own. The last piece is the error, if there is one.
    pub(super) fn read(self) -> mpsc::Receiver<io::Result<Vec<u8>>> {
        let (sink, pieces) = mpsc::channel(PIECES);
        // Standard input may never end; a thread that nobody waits for does not keep the program from ending.
        std::thread::spawn(move || {
            let mut pieces = Pieces { sink, buffer: Vec::with_capacity(PIECE) };
            let read = match self {
                Self::Input => pieces.copy(io::stdin().lock()),
                Self::File(file, _) => pieces.copy(file),
                Self::Skopeo(child) => pieces.run(child),
                Self::Folder(folder, files) => pieces.pack(&folder, &files),
            };
            if let Err(error) = read {
                // Nobody hears it if it is because nobody listens.
                let _ = pieces.sink.blocking_send(Err(error));
            }
        });
        pieces
    }
}

/// Files of a layout, the small ones that say what is in it first.
fn layout(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    let mut add = |name: String| match std::fs::metadata(folder.join(&name)) {
        Ok(metadata) if metadata.is_file() => {
            files.push((name, metadata.len()));
            Ok(())
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for name in ["oci-layout", "index.json", "manifest.json"] {
        add(name.to_owned())?;
    }
    let names = |path: &Path| -> io::Result<Vec<String>> {
        let mut names = match std::fs::read_dir(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
            entries => entries?
                .map(|entry| Ok(entry?.file_name().into_string().ok()))
                .filter_map(io::Result::transpose)
                .collect::<io::Result<Vec<_>>>()?,
        };
        names.sort();
        Ok(names)
    };
    for algorithm in names(&folder.join("blobs"))? {
        for blob in names(&folder.join("blobs").join(&algorithm))? {
            add(format!("blobs/{algorithm}/{blob}"))?;
        }
    }
    Ok(files)
}

struct Pieces {
    sink: mpsc::Sender<io::Result<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Pieces {
    fn copy(&mut self, mut from: impl Read) -> io::Result<()> {
        io::copy(&mut from, self)?;
        self.flush()
    }

    /// Copies what a program writes; it says itself on standard error what went wrong.
    fn run(&mut self, mut child: Child) -> io::Result<()> {
        let copied = match child.stdout.take() {
            Some(output) => self.copy(output),
            None => Ok(()),
        };
        // Its output is closed by now, so that it ends.
        let status = child.wait()?;
        copied?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("skopeo failed ({status})"))) }
    }

    fn pack(&mut self, folder: &Path, files: &[(String, u64)]) -> io::Result<()> {
        let mut archive = tar::Builder::new(&mut *self);
        for (name, size) in files {
            let file = File::open(folder.join(name))?;
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(*size);
            // A file that has become longer meanwhile must not run into the next one.
            archive.append_data(&mut header, name, file.take(*size))?;
        }
        archive.finish()?;
        drop(archive);
        self.flush()
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sink.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where an archive goes. A file has its name only when it is whole.
#[derive(Debug)]
pub(super) enum Target {
    Output,
    /// Something that is there and no file, as a pipe.
    Special(File),
    File {
        file: File,
        draft: PathBuf,
        path: PathBuf,
    },
}

impl Target {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            if io::stdout().is_terminal() {
                let message = "standard output is a terminal: name a file with -o";
                return Err(CliError::Usage(message.into()));
            }
            return Ok(Self::Output);
        };
        let failed = |error| CliError::io(format!("write {}", path.display()))(error);
        if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return File::options().write(true).open(path).map(Self::Special).map_err(failed);
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.part", std::process::id()));
        let file = File::create(&draft).map_err(failed)?;
        Ok(Self::File { file, draft: draft.into(), path: path.to_owned() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Output => io::stdout().lock().write_all(bytes),
            Self::Special(file) | Self::File { file, .. } => file.write_all(bytes),
        }
    }

    /// All of it was written.
    pub(super) fn finish(self) -> io::Result<()> {
        match &self {
            Self::Output => io::stdout().lock().flush(),
            Self::Special(_) => Ok(()),
            Self::File { draft, path, .. } => std::fs::rename(draft, path),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::File { draft, .. } = self {
            // Gone already if it has its name.
            let _ = std::fs::remove_file(draft);
        }
    }
}

/// How far it is, on a terminal; nothing elsewhere.
pub(super) fn bar(message: &str, size: Option<u64>, quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = match size {
        Some(size) => ProgressBar::new(size).with_style(style(BAR).progress_chars("=> ")),
        None => ProgressBar::new_spinner().with_style(style(SPINNER)),
    };
    bar.set_message(message.to_owned());
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn a_layout_becomes_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Source::open(Some(folder.path())), Err(CliError::Usage(_))));
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        let large = vec![7; 3 * PIECE + 5];
        for (name, content) in
            [("index.json", &b"{}"[..]), ("blobs/sha256/b", &large), ("blobs/sha256/a", b"a"), ("other", b"x")]
        {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let source = Source::open(Some(folder.path())).unwrap();
        assert_eq!(source.size(), Some(2 + 1 + large.len() as u64));
        let mut pieces = source.read();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            let piece = piece.unwrap();
            assert!(piece.len() <= 1 << 20);
            bytes.extend(piece);
        }
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            found.push((entry.path().unwrap().into_owned().display().to_string(), entry.size()));
        }
        let expected = [("index.json", 2), ("blobs/sha256/a", 1), ("blobs/sha256/b", large.len() as u64)];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.tar");
        std::fs::write(&path, "before").unwrap();
        let mut target = Target::open(Some(&path)).unwrap();
        target.write(b"half").unwrap();
        drop(target);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        let mut target = Target::open(Some(&path)).unwrap();
        target.write(b"whole").unwrap();
        target.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
