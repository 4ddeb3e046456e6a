//! Money in millionths of the currency, and what amounts of things cost. Exact but for the last millionth. Pure.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, Sub},
};

/// An amount of money, in millionths of the currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i128);

impl Money {
    /// So many millionths.
    pub const fn from_micros(micros: i128) -> Self {
        Self(micros)
    }

    /// In millionths.
    pub const fn micros(self) -> i128 {
        self.0
    }

    /// What `amount` costs where this is the price of `per`, rounded towards nothing to a millionth.
    #[must_use]
    pub fn for_amount(self, amount: u128, per: u128) -> Self {
        let amount = i128::try_from(amount).unwrap_or(i128::MAX);
        let per = i128::try_from(per).unwrap_or(i128::MAX).max(1);
        Self(self.0.saturating_mul(amount) / per)
    }

    /// What is left when so many percent are taken off.
    #[must_use]
    pub fn less(self, percent: u8) -> Self {
        let rest = 100_i128.saturating_sub(percent.into()).max(0);
        Self(self.0.saturating_mul(rest) / 100)
    }

    /// Without its sign, in millionths.
    pub fn size(self) -> u128 {
        self.0.unsigned_abs()
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// With two decimals, half a cent rounded up.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.0.unsigned_abs().saturating_add(5_000) / 10_000;
        let sign = if self.0 < 0 && cents > 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

/// What is paid for a month of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// A core.
    pub vcpu_month: Money,
    /// A GiB of memory.
    pub memory_gib_month: Money,
    /// A GiB of a volume.
    pub storage_gib_month: Money,
    /// A GiB that is sent.
    pub network_gib: Money,
}

const GIB: u128 = 1 << 30;

impl Prices {
    /// What is paid with a commitment, which takes so many percent off CPU and memory.
    #[must_use]
    pub fn committed(self, percent: u8) -> Self {
        Self {
            vcpu_month: self.vcpu_month.less(percent),
            memory_gib_month: self.memory_gib_month.less(percent),
            ..self
        }
    }

    /// Thousandths of cores in thousandths of pods.
    pub fn cpu(&self, millicores: u64, millipods: u64) -> Money {
        let amount = u128::from(millicores) * u128::from(millipods);
        self.vcpu_month.for_amount(amount, 1_000_000)
    }

    /// Bytes of memory in thousandths of pods.
    pub fn memory(&self, bytes: u64, millipods: u64) -> Money {
        let amount = u128::from(bytes) * u128::from(millipods);
        self.memory_gib_month.for_amount(amount, GIB * 1000)
    }

    /// Bytes of volumes.
    pub fn storage(&self, bytes: u128) -> Money {
        self.storage_gib_month.for_amount(bytes, GIB)
    }

    /// Bytes that are sent.
    pub fn network(&self, bytes: u128) -> Money {
        self.network_gib.for_amount(bytes, GIB)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The guide's prices.
    pub fn guide() -> Prices {
        Prices {
            vcpu_month: Money::from_micros(50_000_000),
            memory_gib_month: Money::from_micros(5_000_000),
            storage_gib_month: Money::from_micros(100_000),
            network_gib: Money::from_micros(90_000),
        }
    }

    #[test]
    fn the_guides_bill_comes_out_to_the_cent() {
        let prices = guide();
        let cpu = prices.cpu(2_000, 4_000);
        let memory = prices.memory(8 << 30, 4_000);
        let storage = prices.storage(500 << 30);
        let network = prices.network(1000 << 30);
        let texts = [cpu, memory, storage, network].map(|money| money.to_string());
        assert_eq!(texts, ["400.00", "160.00", "50.00", "90.00"]);
        assert_eq!((cpu + memory + storage + network).to_string(), "700.00");
    }

    #[test]
    fn a_commitment_takes_its_share_off_cpu_and_memory_alone() {
        let prices = guide().committed(30);
        assert_eq!(prices.vcpu_month.to_string(), "35.00");
        assert_eq!(prices.memory_gib_month.to_string(), "3.50");
        assert_eq!(prices.storage_gib_month, guide().storage_gib_month);
        assert_eq!(prices.network_gib, guide().network_gib);
    }

    #[test]
    fn amounts_are_written_with_two_decimals_and_never_as_minus_nothing() {
        for (micros, text) in [
            (0, "0.00"),
            (4_999, "0.00"),
            (-4_999, "0.00"),
            (5_000, "0.01"),
            (-12_500_000, "-12.50"),
            (1_234_567_890, "1234.57"),
        ] {
            assert_eq!(Money::from_micros(micros).to_string(), text);
        }
    }

    #[test]
    fn nothing_overflows_at_the_largest_prices_and_amounts() {
        let dear = Money::from_micros(1_000_000_000_000_000);
        assert!(dear.for_amount(u128::from(u64::MAX), GIB) > dear);
        assert_eq!(Money::from_micros(i128::MAX) + dear, Money::from_micros(i128::MAX));
    }
}
