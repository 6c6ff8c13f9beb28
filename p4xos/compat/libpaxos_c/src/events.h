/* Events of libevent, and the time. */
#ifndef EVENTS_H
#define EVENTS_H

#include <event2/event.h>
#include <event2/event_struct.h>

/* Programs free their event_base before what stands on it; an event that is not pending must not
 * be touched then, since libevent looks into its base. */
static inline void events_remove(struct event *event)
{
    if (event->ev_evcallback.evcb_flags
        & (EVLIST_INSERTED | EVLIST_TIMEOUT | EVLIST_ACTIVE | EVLIST_ACTIVE_LATER))
        event_del(event);
}

double monotonic_s(void);
void events_add_in(struct event *timer, double seconds);

#endif
