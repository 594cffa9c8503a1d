//! The security code: what people read aloud to know that they have the same leader (PROTOCOL.md 3.9).

use std::fmt;

/// 40 decimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecurityCode([u8; 40]);

impl fmt::Display for SecurityCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, digit) in self.0.iter().enumerate() {
            if i > 0 && i % 5 == 0 {
                f.write_str(" ")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SecurityCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecurityCode({self})")
    }
}
