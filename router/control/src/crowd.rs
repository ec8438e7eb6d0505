//! Who is being served: no more than so many, and nobody keeps a place by saying nothing.
//!
//! A client that has not sent a whole request head holds its place only while there is room. When all places are taken,
//! the one of them that came first gives way to whoever comes; who has asked for something never does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The clients of one listener.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    places: Mutex<Places>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By order of arrival; how to send them away, until they have asked for something.
    taken: BTreeMap<u64, Option<Arc<Notify>>>,
}

/// A client's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    sent_away: Arc<Notify>,
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, places: Mutex::default(), freed: Notify::new() })
    }

    /// A place for who has just come; none when all are taken by clients that have asked for something.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut places = self.lock();
        if places.taken.len() >= self.most {
            let silent = |(number, way_out): (&u64, &Option<Arc<Notify>>)| Some((*number, way_out.clone()?));
            let (oldest, way_out) = places.taken.iter().find_map(silent)?;
            places.taken.remove(&oldest);
            way_out.notify_one();
        }
        let (number, sent_away) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.taken.insert(number, Some(Arc::clone(&sent_away)));
        Some(Place { crowd: Arc::clone(self), number, sent_away })
    }

    /// The same, as soon as there is one.
    pub(crate) async fn admit_in_time(self: &Arc<Self>) -> Place {
        loop {
            // A place that is freed from here on is remembered.
            let freed = self.freed.notified();
            match self.admit() {
                Some(place) => return place,
                None => freed.await,
            }
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The client has asked for something, and stays until it is answered.
    pub(crate) fn keep(&self) {
        if let Some(way_out) = self.crowd.lock().taken.get_mut(&self.number) {
            *way_out = None;
        }
    }

    /// Completes when somebody else has been given the place.
    pub(crate) async fn lost(&self) {
        self.sent_away.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().taken.remove(&self.number);
        self.crowd.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn is_lost(place: &Place) -> bool {
        timeout(Duration::ZERO, place.lost()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_gives_way_oldest_first_and_who_has_asked_stays() {
        let crowd = Crowd::new(3);
        let [asked, silent, later] = [(); 3].map(|()| crowd.admit().unwrap());
        asked.keep();
        let new = crowd.admit().unwrap();
        assert!(is_lost(&silent).await && !is_lost(&asked).await && !is_lost(&later).await);
        // What the one who lost it does with its place is nobody's business.
        silent.keep();
        drop(silent);
        let newest = crowd.admit().unwrap();
        assert!(is_lost(&later).await && !is_lost(&new).await);
        new.keep();
        newest.keep();
        assert!(crowd.admit().is_none());
        drop(new);
        assert!(crowd.admit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_wait_gets_the_next_place() {
        let crowd = Crowd::new(1);
        let first = crowd.admit().unwrap();
        first.keep();
        let waiting = tokio::spawn({
            let crowd = Arc::clone(&crowd);
            async move { crowd.admit_in_time().await.number }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), 1);
    }
}
