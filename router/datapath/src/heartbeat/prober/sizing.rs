//! Finding and keeping the size that passes.

use std::time::{Duration, Instant};

use super::{Change, MIN_ROUND, Moment, Phase, Prober, back_off};
use crate::heartbeat::{
    DownReason,
    flights::Purpose,
    frame::SMALL,
    search::{LEAST, Search, Step, TRIES},
};

/// How long the large probe of an attempt may take longer than the small one, before usual sizes are tried.
const MIN_GRACE: Duration = Duration::from_millis(20);
/// A size in use that is no longer answered is tried again for this long; with the interval of full-size heartbeats and the
/// patience for the first of them it is below 2 s.
const SHRINK_PATIENCE: Duration = Duration::from_millis(600);
/// Rounds of a search in a row in which not even a small probe was answered, so that they tell nothing of sizes.
const MAX_BARREN: u32 = 3;

/// A search, and its round that is on its way.
#[derive(Debug)]
pub(super) struct Sizing {
    search: Search,
    /// A small probe that goes with the round: unless it is answered, the others' silence tells nothing of their size.
    pub(super) control: Option<u64>,
    pub(super) is_alive: bool,
    pub(super) ends: Instant,
    barren: u32,
}

impl Prober {
    /// A probe of useful size was answered.
    pub(super) fn proven(&mut self, size: u16, moment: &mut Moment<'_>) {
        let size = size.min(self.ceiling);
        let is_round_over = self.sizing.as_mut().is_some_and(|sizing| sizing.search.answered(size));
        match self.phase {
            Phase::Down { .. } if size == self.ceiling => {
                self.sizing = None;
                self.rise(size, moment);
            }
            Phase::Down { .. } if self.sizing.is_none() => self.rise(size, moment),
            Phase::Up { mtu, .. } if self.sizing.is_none() && size > mtu => self.settle(size),
            Phase::Down { .. } | Phase::Up { .. } if is_round_over => self.proceed(moment),
            Phase::Down { .. } | Phase::Up { .. } => {}
        }
    }

    /// The peer answers small probes: if the largest does not come back in a moment, a search begins.
    pub(super) fn open_search(&mut self, moment: &Moment<'_>) {
        let (overhead, ceiling) = (self.overhead, self.ceiling);
        let ends = moment.now + self.flights.patience(MIN_GRACE * 2) / 2;
        self.sizing.get_or_insert_with(|| Sizing {
            search: Search::new(overhead, 0, ceiling, TRIES),
            control: None,
            is_alive: true,
            ends,
            barren: 0,
        });
    }

    /// The size in use was not answered: asks for it again, and for the usual ones below.
    pub(super) fn doubt(&mut self, mtu: u16, moment: &mut Moment<'_>) {
        let round = self.flights.patience(MIN_ROUND).as_millis().max(1);
        let tries = (SHRINK_PATIENCE.as_millis() / round) as u32;
        self.begin_search(Search::new(self.overhead, 0, mtu, tries.max(TRIES - 1)), moment);
    }

    /// Looks whether more than the size in use passes by now.
    pub(super) fn look_above(&mut self, mtu: u16, moment: &mut Moment<'_>) {
        self.begin_search(Search::new(self.overhead, mtu, self.ceiling, TRIES), moment);
    }

    fn begin_search(&mut self, search: Search, moment: &mut Moment<'_>) {
        self.sizing = Some(Sizing { search, control: None, is_alive: true, ends: moment.now, barren: 0 });
        self.proceed(moment);
    }

    /// The time for a round is up.
    pub(super) fn end_round(&mut self, moment: &mut Moment<'_>) {
        let Some(sizing) = &mut self.sizing else { return };
        if sizing.is_alive {
            sizing.barren = 0;
            return self.proceed(moment);
        }
        sizing.barren += 1;
        if sizing.barren < MAX_BARREN {
            return self.ask(moment);
        }
        // Nothing passes at all now: whether the path lives is for the beats to find out.
        self.sizing = None;
        let ceiling = self.ceiling;
        match &mut self.phase {
            Phase::Down { is_alive, next_attempt, .. } => {
                *is_alive = false;
                *next_attempt = moment.now + back_off(self.attempts, moment);
            }
            Phase::Up { mtu, next_raise, .. } => {
                *next_raise = (*mtu < ceiling).then(|| moment.now + moment.config.raise_first);
            }
        }
    }

    /// A round told what it could: takes what is proven, and goes on with the next.
    fn proceed(&mut self, moment: &mut Moment<'_>) {
        let Some(sizing) = &mut self.sizing else { return };
        let step = sizing.search.advance();
        let best = sizing.search.best();
        match self.phase {
            Phase::Down { .. } if best > 0 => self.rise(best, moment),
            Phase::Down { .. } if step == Step::Done => return self.give_up(moment),
            Phase::Down { .. } => {}
            Phase::Up { mtu, .. } if sizing.search.is_lost(mtu) && best == 0 => {
                return self.fall(DownReason::LargeLost { least: LEAST }, moment);
            }
            Phase::Up { mtu, .. } if sizing.search.is_lost(mtu) || best > mtu => self.settle(best),
            Phase::Up { .. } => {}
        }
        match step {
            Step::Ask => self.ask(moment),
            Step::Done => self.conclude(moment),
        }
    }

    /// Sends a round's probes.
    fn ask(&mut self, moment: &Moment<'_>) {
        let Some(mut sizing) = self.sizing.take() else { return };
        sizing.control = Some(self.send(SMALL, Purpose::Search, moment));
        sizing.is_alive = false;
        for size in sizing.search.round() {
            self.send(*size, Purpose::Search, moment);
        }
        sizing.ends = moment.now + self.flights.patience(MIN_ROUND);
        self.sizing = Some(sizing);
    }

    /// Nothing of use passes.
    fn give_up(&mut self, moment: &mut Moment<'_>) {
        self.sizing = None;
        let wait = back_off(self.attempts, moment);
        if let Phase::Down { next_attempt, .. } = &mut self.phase {
            *next_attempt = moment.now + wait;
        }
        self.report(DownReason::LargeLost { least: LEAST });
    }

    /// The search has nothing more to try.
    fn conclude(&mut self, moment: &Moment<'_>) {
        self.sizing = None;
        let ceiling = self.ceiling;
        if let Phase::Up { mtu, next_raise, raises, .. } = &mut self.phase {
            let wait = if *raises == 0 { moment.config.raise_first } else { moment.config.raise_interval };
            *next_raise = (*mtu < ceiling).then(|| moment.now + wait);
        }
    }

    /// Whether the size in use is in doubt already.
    pub(super) fn is_shrinking(&self) -> bool {
        let Phase::Up { mtu, .. } = self.phase else { return false };
        self.sizing.as_ref().is_some_and(|sizing| sizing.search.best() < mtu)
    }

    pub(super) fn settle(&mut self, size: u16) {
        if let Phase::Up { mtu, raises, .. } = &mut self.phase {
            if size < *mtu {
                *raises = 0;
            }
            if std::mem::replace(mtu, size) != size {
                self.changes.push_back(Change::Mtu(size));
            }
        }
    }
}
