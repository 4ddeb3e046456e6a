//! Pod settings: keys that are the operator's, and resources that are complete and fit. Pure.

use selextract_crds::{Compute, PodSettings, Quantity};

use super::{Pod, check::Check, sizes::Size};

/// A request and a limit.
type Pair = (Option<Quantity>, Option<Quantity>);

impl Check {
    pub(super) fn pod(&mut self, field: &str, settings: &PodSettings, size: &Size) -> Pod {
        for (map, keys) in [
            ("labels", settings.labels.keys()),
            ("annotations", settings.annotations.keys()),
        ] {
            for key in keys {
                let domain = key.split_once('/').map_or("", |(domain, _)| domain);
                if ["app.kubernetes.io", "selextract.io"].contains(&domain) {
                    let cure = "keys of app.kubernetes.io and selextract.io are the operator's; choose another";
                    self.refuse("ReservedKey", &format!("{field}.{map}"), key, cure);
                }
            }
        }
        let own = settings.resources.clone().unwrap_or_default();
        let (requests, limits) = (own.requests.unwrap_or_default(), own.limits.unwrap_or_default());
        let (least, most) = (size.requests(), size.limits());
        let cpu = self.fit(
            &format!("{field}.resources.*.cpu"),
            &(requests.cpu, limits.cpu),
            (least.cpu, most.cpu),
        );
        let memory = (requests.memory, limits.memory);
        let memory = self.fit(
            &format!("{field}.resources.*.memory"),
            &memory,
            (least.memory, most.memory),
        );
        Pod {
            settings: settings.clone(),
            requests: Compute {
                cpu: cpu.0,
                memory: memory.0,
            },
            limits: Compute {
                cpu: cpu.1,
                memory: memory.1,
            },
        }
    }

    /// The user's figures, with the profile's in the gaps, moved so that the request is within the limit.
    fn fit(&mut self, field: &str, own: &Pair, profile: Pair) -> Pair {
        for quantity in [&own.0, &own.1].into_iter().flatten() {
            self.bytes(field, quantity);
        }
        if exceeds(own) {
            let request = own.0.as_ref().map(Quantity::as_str).unwrap_or_default();
            self.refuse(
                "InvalidQuantity",
                field,
                request,
                "the request is above the limit; lower it or raise the limit",
            );
        }
        let both = (own.0.clone().or(profile.0), own.1.clone().or(profile.1));
        match (exceeds(&both), own.1.is_some()) {
            (true, true) => (both.1.clone(), both.1),
            (true, false) => (both.0.clone(), both.0),
            (false, _) => both,
        }
    }
}

fn exceeds((request, limit): &Pair) -> bool {
    request
        .as_ref()
        .zip(limit.as_ref())
        .is_some_and(|(request, limit)| request.millis() > limit.millis())
}
