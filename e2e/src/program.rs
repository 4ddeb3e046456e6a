//! Runs other programs to their end, with a time-out, and says what they said when they fail.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a program may run when nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(1);
/// How much of a failed program's output goes into the error.
const SHOWN: usize = 4000;

/// A program that is run to its end.
pub struct Program {
    command: Command,
    shown: String,
    timeout: Duration,
    input: Option<Vec<u8>>,
    output_shown: bool,
}

impl Program {
    /// A program with its arguments.
    pub fn new<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Self {
        let mut command = Command::new(program.as_ref());
        let name = Path::new(program.as_ref())
            .file_name()
            .unwrap_or(program.as_ref())
            .to_string_lossy();
        let shown = name.into_owned();
        command.stdin(Stdio::null());
        Self {
            command,
            shown,
            timeout: DEFAULT_TIMEOUT,
            input: None,
            output_shown: false,
        }
        .and(arguments)
    }

    /// With these arguments after the others.
    pub fn and<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(&argument.as_ref().to_string_lossy());
            self.command.arg(argument);
        }
        self
    }

    /// One line of words separated by blanks.
    pub fn line(line: &str) -> Self {
        let mut words = line.split_whitespace();
        Self::new(words.next().unwrap_or_default(), words)
    }

    /// At most this long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With this on its standard input.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// In this folder.
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without these variables in its environment.
    pub fn without(mut self, names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for name in names {
            self.command.env_remove(name);
        }
        self
    }

    /// Its standard error goes to ours while it runs.
    pub fn show_output(mut self) -> Self {
        self.output_shown = true;
        self
    }

    /// Runs it; a failure is an error.
    pub fn run(self) -> Result<()> {
        self.output().map(drop)
    }

    /// Runs it; whether it ended well.
    pub fn succeeds(self) -> bool {
        self.output().is_ok()
    }

    /// Runs it; what it wrote to standard output.
    pub fn output(mut self) -> Result<String> {
        let started = Instant::now();
        let mut child = self.spawn()?;
        let output = read_all(child.stdout.take());
        let errors = read_all(child.stderr.take());
        let writer = self.input.take().zip(child.stdin.take()).map(|(input, mut stdin)| {
            // A program that does not read all of its input says so by its exit status.
            thread::spawn(move || drop(stdin.write_all(&input)))
        });
        let status = wait(&mut child, started, self.timeout)?;
        let output = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        if let Some(writer) = writer {
            // The thread ends with the program's end of the pipe.
            drop(writer.join());
        }
        match status {
            Some(status) if status.success() => Ok(output),
            Some(status) => bail!(
                "`{}` ended with {status}: {}",
                self.shown,
                tail(&format!("{output}{errors}"), SHOWN)
            ),
            None => bail!(
                "`{}` did not end within {} s: {}",
                self.shown,
                self.timeout.as_secs(),
                tail(&format!("{output}{errors}"), SHOWN)
            ),
        }
    }

    fn spawn(&mut self) -> Result<Child> {
        let stdin = if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let stderr = if self.output_shown {
            Stdio::inherit()
        } else {
            Stdio::piped()
        };
        self.command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", self.shown))
    }
}

/// Waits for the end, and kills at the deadline.
fn wait(child: &mut Child, started: Instant, timeout: Duration) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before a broken pipe is still worth showing.
            drop(pipe.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last `length` bytes or so of a text, from the beginning of a character.
pub fn tail(text: &str, length: usize) -> &str {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(length);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_at_its_deadline() {
        let started = Instant::now();
        let error = Program::line("sleep 30")
            .timeout(Duration::from_millis(100))
            .run()
            .unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = Program::new("sh", ["-c", "echo it broke >&2; exit 3"])
            .run()
            .unwrap_err()
            .to_string();
        assert!(error.contains("it broke") && error.contains('3'), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(Program::line("cat").input("a\nb").output().unwrap(), "a\nb");
    }

    #[test]
    fn a_tail_begins_at_a_character() {
        assert_eq!(tail("aäb", 2), "b");
        assert_eq!(tail("ab\n", 10), "ab");
    }
}
