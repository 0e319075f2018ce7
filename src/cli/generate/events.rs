//! What `generate` puts on a stream: one JSON object a record, as applications write them.

use crate::time::Timestamp;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

const COUNTRIES: [(&str, &str); 12] = [
    ("USA", "North America"),
    ("Canada", "North America"),
    ("India", "Asia"),
    ("China", "Asia"),
    ("Japan", "Asia"),
    ("Norway", "Europe"),
    ("Portugal", "Europe"),
    ("Libya", "Middle East and North Africa"),
    ("Côte d'Ivoire", "Sub-Saharan Africa"),
    ("Kenya", "Sub-Saharan Africa"),
    ("Tonga", "Australia and Oceania"),
    ("Belize", "Central America and the Caribbean"),
];
const ITEMS: [(&str, u64, u64); 6] = [
    ("Baby Food", 25528, 15942),
    ("Cereal", 20570, 11711),
    ("Clothes", 10928, 3584),
    ("Cosmetics", 43720, 26333),
    ("Fruits", 933, 692),
    ("Office Supplies", 65121, 52496),
];
const SPORTS: [&str; 7] = ["baseball", "basketball", "football", "ice hockey", "soccer", "tennis", "volleyball"];
const PLACES: [&str; 4] = ["Boston, Fenway Park", "Chicago, United Center", "Montréal, Centre Bell", "München, Allianz Arena"];
const LEVELS: [&str; 4] = ["Club", "Luxury", "Premium", "Standard"];

/// Random numbers, the same for the same event in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        xxh3_64(&self.0.to_le_bytes()) % end.max(1)
    }

    fn choose<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> T {
        of[self.below(N as u64) as usize]
    }

    fn date(&mut self) -> String {
        format!("{}/{}/{}", 1 + self.below(12), 1 + self.below(28), 10 + self.below(8))
    }
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// Who looked at what was sold where. As the real ones, with their faults: `uuid` is a number, some months don't exist, and most countries are in no lookup.
pub(super) fn impression(number: u64, now: Timestamp) -> (String, Value) {
    let mut dice = Dice(number << 8);
    let uuid = number;
    let (country, region) = dice.choose(&COUNTRIES);
    let (item, price, cost) = dice.choose(&ITEMS);
    let units = 1 + dice.below(10_000);
    let month = if dice.below(50) == 0 { 13 + dice.below(3) } else { 1 + dice.below(12) };
    let second = now.as_micros().div_euclid(1_000_000).rem_euclid(60);
    let event = json!({
        "uuid": uuid,
        "country": country,
        "itemtype": item,
        "saleschannel": if dice.below(2) == 0 { "Offline" } else { "Online" },
        "orderpriority": dice.choose(&["C", "H", "M", "L"]),
        "orderdate": dice.date(),
        "region": region,
        "shipdate": dice.date(),
        "unitssold": units.to_string(),
        "unitprice": money(price),
        "unitcost": money(cost),
        "totalrevenue": money(price * units),
        "totalcost": money(cost * units),
        "totalprofit": money((price - cost) * units),
        "impressiontime": format!("2022-{month:02}-{:02}T{:02}:{:02}:{second:02}Z", 1 + dice.below(28), dice.below(24), dice.below(60)),
    });
    (uuid.to_string(), event)
}

/// A ticket that is bought, or repriced: of a million tickets, each is seen again and again.
pub(super) fn ticket(number: u64, now: Timestamp) -> (String, Value) {
    let mut dice = Dice(number << 8);
    let id = 1 + dice.below(1_000_000);
    let time = now.to_datetime().map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
    let event = json!({
        "ticketactivity_id": id,
        "sport_type": dice.choose(&SPORTS),
        "start_date": format!("2027-{:02}-{:02} 19:30:00", 1 + dice.below(12), 1 + dice.below(28)),
        "location": dice.choose(&PLACES),
        "seat_level": dice.choose(&LEVELS),
        "seat_location": format!("{}-{}-{}", char::from(b'A' + dice.below(8) as u8), 1 + dice.below(60), 1 + dice.below(400)),
        "ticket_price": 20 + dice.below(880),
        "customer_name": format!("Customer {}", dice.below(100_000)),
        "email_address": format!("c{}@example.com", dice.below(100_000)),
        "created_at": &time,
        "updated_at": &time,
    });
    (id.to_string(), event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_in_each_run_and_have_the_real_ones_faults() {
        let now = Timestamp::from_micros(1_763_751_234_000_000);
        assert_eq!(impression(5, now), impression(5, now));
        assert_eq!(ticket(5, now), ticket(5, now));
        let events: Vec<Value> = (0..1000).map(|number| impression(number, now).1).collect();
        assert!(events.iter().all(|event| event["uuid"].is_u64() && event["unitssold"].is_string()));
        let month = |event: &Value| event["impressiontime"].as_str().and_then(|time| time[5..7].parse::<u32>().ok());
        let wrong = events.iter().filter(|event| month(event) > Some(12)).count();
        assert!((1..100).contains(&wrong), "{wrong} of 1000 have a month that doesn't exist");
        assert_eq!(events[0].as_object().map(|event| event.len()), Some(15));
        assert_eq!(ticket(1, now).1.as_object().map(|event| event.len()), Some(11));
    }
}
