//! The terminal that halectl runs in: raw while a session has it, and as it was after.

use std::io::IsTerminal as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal in raw mode. Dropped, also by a panic, it is as it was before.
pub(in crate::cli) struct Raw(Termios);

impl Raw {
    /// Standard input's, which must be a terminal.
    pub(in crate::cli) fn enter() -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has hung up can't be set, and needn't.
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.0).ok();
    }
}

/// Whether someone sits there and types.
pub(in crate::cli) fn is_one() -> bool {
    std::io::stdin().is_terminal()
}

/// Columns and rows. `None`: it doesn't know.
pub(in crate::cli) fn size() -> Option<(u16, u16)> {
    let of = |size: rustix::termios::Winsize| (size.ws_col, size.ws_row);
    let found = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin()));
    found.ok().map(of).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}
