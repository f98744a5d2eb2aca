/* The calendar in C: the same structure and the same answers as pure.py, which explains it. Needs a C99 compiler only.

   Callers go through compiled.py. Functions that may fail return a negative number: BUSY, TAKEN or NO_MEMORY. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BEGUN (-1)
#define FIXED (-1)
#define FOREVER ((int64_t)1 << 52)
#define MOST_SETS 64
#define MOST_GPUS 64
#define MOST_IN_CHUNK 128
#define MOST_TIED 64
#define MOST_FREE 64
#define MOST_TRIES 4
#define MOST_DISPLACED 64
#define MOST_PIECES 128
#define ONE_PIECE (-1)

enum { BUSY = -1, TAKEN = -2, NO_MEMORY = -3, NO_PLACE = -4 };

typedef int64_t i64;
typedef int32_t i32;
typedef uint64_t u64;

typedef struct { i64 start, end; i32 host, set; } Place;
/* Until when each host has room from now on for what is `kept` so long behind its end; on hosts with its label it is its
   own from `own` on. */
typedef struct { const i64 *until; i64 kept, own; i32 label; } Room;
/* `room`: where one is looked for that has to have some. `first`: of each host, when one may start there at the earliest.
   NULL otherwise, and in what is booked. */
typedef struct {
    i32 size; i64 whole, shortest; i32 shape, label, silent, kind; i64 lead, end_by;
    const Room *room; const i64 *first;
} Fit;
typedef struct { i64 start, end; } Stretch;
/* Of `n` pieces; 0: of one, its place. */
typedef struct { Place place; Fit fit; i64 due; i32 used, n; Stretch *pieces; } Booking;

typedef struct { Place *gaps; i32 n; i64 longest, latest; } Chunk;
typedef struct { Chunk *chunks; i32 n, room; } Index;

typedef struct { Stretch *at; i32 n, room; } Gaps;
typedef struct { i64 start, end; i32 key; } Busy;
typedef struct { Busy *at; i32 n, room; } Line;

typedef struct {
    i32 sets, gpus;
    u64 masks[MOST_SETS];
    i32 sizes[MOST_SETS];
    i32 conflicts[MOST_SETS][MOST_SETS], conflict_count[MOST_SETS];
    i32 around[MOST_SETS][MOST_SETS], around_count[MOST_SETS];
} Kind;

typedef struct {
    i32 kind, label, silent;
    i64 begin[MOST_SETS];
    Gaps *gaps;
    Line *lines;
} Host;

typedef struct { i64 *starts, *ends; i32 *parks; i32 n; } Stretches;
typedef struct { Stretches *hosts; i32 n; } Shape;

typedef struct {
    i64 now;
    Kind *kinds; i32 kind_count;
    Host *hosts; i32 host_count;
    Shape *shapes; i32 shape_count;
    Booking *bookings; i32 room, count;
    Index by_size[MOST_GPUS + 1];
    i32 *stamp; i32 stamp_room, stamp_now;
    i32 is_broken;
} Calendar;

static i64 later(i64 a, i64 b) { return a > b ? a : b; }
static i64 sooner(i64 a, i64 b) { return a < b ? a : b; }

/* Grow an array; on failure the calendar is broken for good, and says so. */
static void *grown(Calendar *c, void *old, i32 *room, i32 need, size_t each) {
    if (need <= *room) return old;
    i32 more = *room ? *room : 4;
    while (more < need) more *= 2;
    void *new = realloc(old, (size_t)more * each);
    if (!new) { c->is_broken = 1; return old; }
    *room = more;
    return new;
}

/* ---- gaps of one size */

static int before(const Place *a, const Place *b) {
    if (a->start != b->start) return a->start < b->start;
    if (a->host != b->host) return a->host < b->host;
    return a->set < b->set;
}

/* The number of chunks whose first gap is not after this one. */
static i32 chunks_up_to(const Index *index, const Place *gap) {
    i32 low = 0, high = index->n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (before(gap, &index->chunks[middle].gaps[0])) high = middle; else low = middle + 1;
    }
    return low;
}

static i32 place_in(const Chunk *chunk, const Place *gap) {
    i32 low = 0, high = chunk->n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (before(&chunk->gaps[middle], gap)) low = middle + 1; else high = middle;
    }
    return low;
}

static void index_add(Calendar *c, Index *index, Place gap) {
    i64 length = gap.end - later(gap.start, c->now);
    if (!index->n) {
        index->chunks = grown(c, index->chunks, &index->room, 1, sizeof(Chunk));
        Place *gaps = malloc((MOST_IN_CHUNK + 1) * sizeof(Place));
        if (c->is_broken || !gaps) { c->is_broken = 1; free(gaps); return; }
        gaps[0] = gap;
        index->chunks[0] = (Chunk){gaps, 1, length, gap.end};
        index->n = 1;
        return;
    }
    i32 number = chunks_up_to(index, &gap) - 1;
    if (number < 0) number = 0;
    Chunk *chunk = &index->chunks[number];
    i32 at = place_in(chunk, &gap);
    memmove(&chunk->gaps[at + 1], &chunk->gaps[at], (size_t)(chunk->n - at) * sizeof(Place));
    chunk->gaps[at] = gap;
    chunk->n++;
    chunk->longest = later(chunk->longest, length);
    chunk->latest = later(chunk->latest, gap.end);
    if (chunk->n <= MOST_IN_CHUNK) return;
    index->chunks = grown(c, index->chunks, &index->room, index->n + 1, sizeof(Chunk));
    Place *gaps = malloc((MOST_IN_CHUNK + 1) * sizeof(Place));
    if (c->is_broken || !gaps) { c->is_broken = 1; free(gaps); chunk->n--; return; }
    chunk = &index->chunks[number];
    memmove(&index->chunks[number + 2], &index->chunks[number + 1], (size_t)(index->n - number - 1) * sizeof(Chunk));
    i32 half = chunk->n / 2;
    memcpy(gaps, &chunk->gaps[half], (size_t)(chunk->n - half) * sizeof(Place));
    index->chunks[number + 1] = (Chunk){gaps, chunk->n - half, chunk->longest, chunk->latest};
    chunk->n = half;
    index->n++;
}

static void index_remove(Index *index, Place gap) {
    i32 number = chunks_up_to(index, &gap) - 1;
    Chunk *chunk = &index->chunks[number];
    i32 at = place_in(chunk, &gap);
    chunk->n--;
    memmove(&chunk->gaps[at], &chunk->gaps[at + 1], (size_t)(chunk->n - at) * sizeof(Place));
    if (chunk->n) return;
    free(chunk->gaps);
    index->n--;
    memmove(&index->chunks[number], &index->chunks[number + 1], (size_t)(index->n - number) * sizeof(Chunk));
}

static void tighten(const Calendar *c, Chunk *chunk) {
    chunk->longest = chunk->latest = INT64_MIN;
    for (i32 i = 0; i < chunk->n; i++) {
        chunk->longest = later(chunk->longest, chunk->gaps[i].end - later(chunk->gaps[i].start, c->now));
        chunk->latest = later(chunk->latest, chunk->gaps[i].end);
    }
}

/* ---- making one */

i32 calendar_version(void) { return 6; }

void calendar_free(Calendar *c) {
    if (!c) return;
    for (i32 h = 0; h < c->host_count; h++) {
        const Kind *kind = &c->kinds[c->hosts[h].kind];
        for (i32 s = 0; s < kind->sets; s++) free(c->hosts[h].gaps[s].at);
        for (i32 g = 0; g < kind->gpus; g++) free(c->hosts[h].lines[g].at);
        free(c->hosts[h].gaps);
        free(c->hosts[h].lines);
    }
    for (i32 s = 0; s < c->shape_count; s++) {
        for (i32 h = 0; h < c->shapes[s].n; h++) {
            free(c->shapes[s].hosts[h].starts);
            free(c->shapes[s].hosts[h].ends);
            free(c->shapes[s].hosts[h].parks);
        }
        free(c->shapes[s].hosts);
    }
    for (i32 s = 0; s <= MOST_GPUS; s++) {
        for (i32 n = 0; n < c->by_size[s].n; n++) free(c->by_size[s].chunks[n].gaps);
        free(c->by_size[s].chunks);
    }
    for (i32 b = 0; b < c->room; b++) free(c->bookings[b].pieces);
    free(c->kinds);
    free(c->hosts);
    free(c->shapes);
    free(c->bookings);
    free(c->stamp);
    free(c);
}

Calendar *calendar_new(i64 now) {
    Calendar *c = calloc(1, sizeof(Calendar));
    if (c) c->now = now;
    return c;
}

i32 calendar_add_kind(Calendar *c, const u64 *masks, i32 sets) {
    Kind *kinds = realloc(c->kinds, (size_t)(c->kind_count + 1) * sizeof(Kind));
    if (!kinds) return NO_MEMORY;
    c->kinds = kinds;
    Kind *kind = &kinds[c->kind_count];
    memset(kind, 0, sizeof(Kind));
    kind->sets = sets;
    for (i32 s = 0; s < sets; s++) {
        kind->masks[s] = masks[s];
        for (i32 g = 0; g < MOST_GPUS; g++)
            if (masks[s] >> g & 1) { kind->sizes[s]++; if (g >= kind->gpus) kind->gpus = g + 1; }
    }
    for (i32 s = 0; s < sets; s++) {
        for (i32 o = 0; o < sets; o++) {
            if (!(masks[s] & masks[o])) continue;
            kind->conflicts[s][kind->conflict_count[s]++] = o;
            if (kind->sizes[o] <= kind->sizes[s]) continue;
            i32 at = kind->around_count[s]++;
            for (; at > 0 && kind->sizes[kind->around[s][at - 1]] > kind->sizes[o]; at--)
                kind->around[s][at] = kind->around[s][at - 1];
            kind->around[s][at] = o;
        }
    }
    return c->kind_count++;
}

i32 calendar_add_host(Calendar *c, i32 kind, i32 label) {
    Host *hosts = realloc(c->hosts, (size_t)(c->host_count + 1) * sizeof(Host));
    if (!hosts) return NO_MEMORY;
    c->hosts = hosts;
    Host *host = &hosts[c->host_count];
    memset(host, 0, sizeof(Host));
    host->kind = kind;
    host->label = label;
    host->gaps = calloc((size_t)c->kinds[kind].sets, sizeof(Gaps));
    host->lines = calloc((size_t)c->kinds[kind].gpus, sizeof(Line));
    if (!host->gaps || !host->lines) { free(host->gaps); free(host->lines); return NO_MEMORY; }
    i32 number = c->host_count++;
    for (i32 s = 0; s < c->kinds[kind].sets; s++) {
        Gaps *gaps = &host->gaps[s];
        gaps->at = grown(c, gaps->at, &gaps->room, 1, sizeof(Stretch));
        if (c->is_broken) return NO_MEMORY;
        gaps->at[0] = (Stretch){BEGUN, FOREVER};
        gaps->n = 1;
        index_add(c, &c->by_size[c->kinds[kind].sizes[s]], (Place){BEGUN, FOREVER, number, s});
    }
    return c->is_broken ? NO_MEMORY : number;
}

void calendar_set_silent(Calendar *c, i32 host, i32 silent) { c->hosts[host].silent = silent; }

void calendar_set_begin(Calendar *c, i32 host, i32 set, i64 at) { c->hosts[host].begin[set] = at; }

i32 calendar_add_shape(Calendar *c) {
    Shape *shapes = realloc(c->shapes, (size_t)(c->shape_count + 1) * sizeof(Shape));
    if (!shapes) return NO_MEMORY;
    c->shapes = shapes;
    shapes[c->shape_count] = (Shape){NULL, 0};
    return c->shape_count++;
}

i32 calendar_set_stretches(
    Calendar *c, i32 shape, i32 host, const i64 *starts, const i64 *ends, const i32 *parks, i32 n
) {
    Shape *mine = &c->shapes[shape];
    if (host >= mine->n) {
        Stretches *hosts = realloc(mine->hosts, (size_t)(host + 1) * sizeof(Stretches));
        if (!hosts) return NO_MEMORY;
        memset(&hosts[mine->n], 0, (size_t)(host + 1 - mine->n) * sizeof(Stretches));
        mine->hosts = hosts;
        mine->n = host + 1;
    }
    Stretches *old = &mine->hosts[host];
    size_t count = n ? (size_t)n : 1;
    Stretches new = {malloc(count * sizeof(i64)), malloc(count * sizeof(i64)), malloc(count * sizeof(i32)), n};
    if (!new.starts || !new.ends || !new.parks) {
        free(new.starts); free(new.ends); free(new.parks);
        return NO_MEMORY;
    }
    memcpy(new.starts, starts, (size_t)n * sizeof(i64));
    memcpy(new.ends, ends, (size_t)n * sizeof(i64));
    memcpy(new.parks, parks, (size_t)n * sizeof(i32));
    free(old->starts); free(old->ends); free(old->parks);
    *old = new;
    return 0;
}

/* ---- searching in one line */

static i32 ends_after(const Stretch *at, i32 n, i64 instant) { /* the first that ends after an instant */
    i32 low = 0, high = n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (at[middle].end > instant) high = middle; else low = middle + 1;
    }
    return low;
}

static i32 ends_from(const Stretch *at, i32 n, i64 instant) { /* the first that ends at an instant or after it */
    return ends_after(at, n, instant - 1);
}

static i32 busy_after(const Line *line, i64 instant) {
    i32 low = 0, high = line->n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (line->at[middle].end > instant) high = middle; else low = middle + 1;
    }
    return low;
}

static i32 begins_from(const Line *line, i64 instant) {
    i32 low = 0, high = line->n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (line->at[middle].start >= instant) high = middle; else low = middle + 1;
    }
    return low;
}

static Index *index_of(Calendar *c, const Kind *kind, i32 set) { return &c->by_size[kind->sizes[set]]; }

/* Put `n` gaps in the place of those numbered `first` to `last` of one set. */
static void splice(Calendar *c, Gaps *gaps, i32 first, i32 last, const Stretch *pieces, i32 n) {
    i32 total = gaps->n - (last - first) + n;
    gaps->at = grown(c, gaps->at, &gaps->room, total, sizeof(Stretch));
    if (c->is_broken) return;
    memmove(&gaps->at[first + n], &gaps->at[last], (size_t)(gaps->n - last) * sizeof(Stretch));
    memcpy(&gaps->at[first], pieces, (size_t)n * sizeof(Stretch));
    gaps->n = total;
}

/* ---- time */

i32 calendar_advance(Calendar *c, i64 now) {
    c->now = now;
    for (i32 size = 0; size <= MOST_GPUS; size++) {
        Index *index = &c->by_size[size];
        for (;;) {
            Place zero = {0, 0, -1, -1}, found = {0, 0, 0, 0};
            int is_found = 0;
            i32 number = chunks_up_to(index, &zero) - 1;
            if (number < 0) number = 0;
            for (; !is_found && number < index->n && index->chunks[number].gaps[0].start <= now; number++) {
                Chunk *chunk = &index->chunks[number];
                i32 at = place_in(chunk, &zero);
                if (at < chunk->n && chunk->gaps[at].start <= now) { found = chunk->gaps[at]; is_found = 1; }
            }
            if (!is_found) break;
            Host *host = &c->hosts[found.host];
            Gaps *gaps = &host->gaps[found.set];
            i32 at = 0;
            while (gaps->at[at].start != found.start) {
                index_remove(index, (Place){gaps->at[at].start, gaps->at[at].end, found.host, found.set});
                at++;
            }
            index_remove(index, found);
            if (found.end > now) {
                gaps->at[at].start = BEGUN;
                index_add(c, index, (Place){BEGUN, found.end, found.host, found.set});
            } else at++;
            splice(c, gaps, 0, at, NULL, 0);
            if (c->is_broken) return NO_MEMORY;
        }
    }
    return 0;
}

/* ---- booking */

i32 calendar_is_free(const Calendar *c, i32 host, i32 set, i64 start, i64 end) {
    if (end <= c->now) return 1;
    const Gaps *gaps = &c->hosts[host].gaps[set];
    start = later(start, c->now);
    i32 at = ends_after(gaps->at, gaps->n, start);
    return at < gaps->n && gaps->at[at].start <= start && gaps->at[at].end >= end;
}

i64 calendar_free_until(const Calendar *c, i32 host, i32 set, i64 from) {
    const Gaps *gaps = &c->hosts[host].gaps[set];
    i32 at = ends_after(gaps->at, gaps->n, from);
    return at < gaps->n && gaps->at[at].start <= from ? gaps->at[at].end : from;
}

/* The whole gaps of a set that have time in common with a span; of more than `most`, the first. */
i32 calendar_gaps(const Calendar *c, i32 host, i32 set, i64 start, i64 end, i64 *starts, i64 *ends, i32 most) {
    const Gaps *gaps = &c->hosts[host].gaps[set];
    i32 count = 0;
    for (i32 at = ends_after(gaps->at, gaps->n, later(start, c->now)); at < gaps->n && gaps->at[at].start < end; at++) {
        if (count == most) break;
        starts[count] = gaps->at[at].start;
        ends[count++] = gaps->at[at].end;
    }
    return count;
}

static void take(Calendar *c, i32 key, const Place *place) {
    Host *host = &c->hosts[place->host];
    const Kind *kind = &c->kinds[host->kind];
    i64 start = place->start, end = place->end, now = c->now;
    if (end <= now) return;
    for (i32 g = 0; g < kind->gpus; g++) {
        if (!(kind->masks[place->set] >> g & 1)) continue;
        Line *line = &host->lines[g];
        line->at = grown(c, line->at, &line->room, line->n + 1, sizeof(Busy));
        if (c->is_broken) return;
        i32 at = begins_from(line, start);
        memmove(&line->at[at + 1], &line->at[at], (size_t)(line->n - at) * sizeof(Busy));
        line->at[at] = (Busy){start, end, key};
        line->n++;
    }
    i64 from = later(start, now);
    for (i32 n = 0; n < kind->conflict_count[place->set]; n++) {
        i32 other = kind->conflicts[place->set][n];
        Gaps *gaps = &host->gaps[other];
        Index *index = index_of(c, kind, other);
        i32 first = ends_after(gaps->at, gaps->n, from), at = first, count = 0;
        Stretch pieces[2];
        while (at < gaps->n && gaps->at[at].start < end) {
            Stretch gap = gaps->at[at];
            index_remove(index, (Place){gap.start, gap.end, place->host, other});
            if (gap.start < from && start > now) pieces[count++] = (Stretch){gap.start, from};
            if (gap.end > end) pieces[count++] = (Stretch){end, gap.end};
            at++;
        }
        splice(c, gaps, first, at, pieces, count);
        for (i32 i = 0; i < count; i++)
            index_add(c, index, (Place){pieces[i].start, pieces[i].end, place->host, other});
    }
}

static void forget(Calendar *c, i32 key, const Place *place) {
    Host *host = &c->hosts[place->host];
    const Kind *kind = &c->kinds[host->kind];
    for (i32 g = 0; g < kind->gpus; g++) {
        if (!(kind->masks[place->set] >> g & 1)) continue;
        Line *line = &host->lines[g];
        i32 at = begins_from(line, place->start);
        if (at >= line->n || line->at[at].key != key) continue;
        line->n--;
        memmove(&line->at[at], &line->at[at + 1], (size_t)(line->n - at) * sizeof(Busy));
    }
}

/* Enter a free piece of a set, joined with the gaps that it touches. */
static void add_piece(Calendar *c, i32 number, i32 other, Stretch piece) {
    Host *host = &c->hosts[number];
    Gaps *gaps = &host->gaps[other];
    Index *index = index_of(c, &c->kinds[host->kind], other);
    i64 now = c->now;
    /* What ended by now is over: it goes as soon as its set is touched. */
    i32 at = piece.start > now ? ends_from(gaps->at, gaps->n, piece.start) : 0, last = at;
    Stretch new = {piece.start <= now ? BEGUN : piece.start, piece.end};
    if (at < gaps->n && gaps->at[at].end == piece.start && piece.start > now) {
        new.start = gaps->at[at].start;
        index_remove(index, (Place){gaps->at[at].start, gaps->at[at].end, number, other});
        last = at + 1;
    }
    while (last < gaps->n && gaps->at[last].end <= now) {
        index_remove(index, (Place){gaps->at[last].start, gaps->at[last].end, number, other});
        last++;
    }
    if (last < gaps->n && gaps->at[last].start == piece.end) {
        index_remove(index, (Place){gaps->at[last].start, gaps->at[last].end, number, other});
        new.end = gaps->at[last].end;
        last++;
    }
    splice(c, gaps, at, last, &new, 1);
    index_add(c, index, (Place){new.start, new.end, number, other});
}

static void give(Calendar *c, i32 key, const Place *place) {
    Host *host = &c->hosts[place->host];
    const Kind *kind = &c->kinds[host->kind];
    i64 end = place->end, from = later(place->start, c->now);
    forget(c, key, place);
    if (end <= c->now) return;
    u64 mine = kind->masks[place->set];
    for (i32 n = 0; n < kind->conflict_count[place->set]; n++) {
        i32 other = kind->conflicts[place->set][n];
        u64 rest = kind->masks[other] & ~mine;
        /* Sweep the lines of the other GPUs at once, from where all are free to where the first is busy. */
        i32 at[MOST_GPUS], gpus[MOST_GPUS], count = 0;
        for (i32 g = 0; rest && g < kind->gpus; g++)
            if (rest >> g & 1) { at[count] = busy_after(&host->lines[g], from); gpus[count++] = g; }
        for (i64 cursor = from; cursor < end;) {
            i64 busy_until = cursor, free_until = end;
            for (i32 i = 0; i < count; i++) {
                const Line *line = &host->lines[gpus[i]];
                while (at[i] < line->n && line->at[at[i]].end <= cursor) at[i]++;
                if (at[i] == line->n) continue;
                const Busy *first = &line->at[at[i]];
                if (first->start <= cursor) busy_until = later(busy_until, first->end);
                else free_until = sooner(free_until, first->start);
            }
            if (busy_until == cursor) {
                add_piece(c, place->host, other, (Stretch){cursor, free_until});
                busy_until = free_until;
            }
            cursor = busy_until;
        }
    }
}

static int is_booked(const Calendar *c, i32 key) { return key >= 0 && key < c->room && c->bookings[key].used; }

static Place piece_of(const Booking *booking, i32 number) {
    const Place *place = &booking->place;
    if (!booking->n) return *place;
    return (Place){booking->pieces[number].start, booking->pieces[number].end, place->host, place->set};
}

static i32 piece_count(const Booking *booking) { return booking->n ? booking->n : 1; }

/* Enter a booking whose GPUs are free then. Its pieces belong to the calendar from now on. */
static i32 put_in(Calendar *c, i32 key, const Booking *booking) {
    i32 was = c->room;
    c->bookings = grown(c, c->bookings, &c->room, key + 1, sizeof(Booking));
    if (c->is_broken) return NO_MEMORY;
    if (c->room > was) memset(&c->bookings[was], 0, (size_t)(c->room - was) * sizeof(Booking));
    c->bookings[key] = *booking;
    c->bookings[key].used = 1;
    c->count++;
    for (i32 n = 0; n < piece_count(booking); n++) {
        Place piece = piece_of(booking, n);
        take(c, key, &piece);
    }
    return c->is_broken ? NO_MEMORY : 0;
}

/* Take a booking out and hand it over, with its pieces. */
static i32 take_out(Calendar *c, i32 key, Booking *out) {
    if (c->is_broken) return NO_MEMORY;
    if (!is_booked(c, key)) return NO_PLACE;
    *out = c->bookings[key];
    c->bookings[key].used = c->bookings[key].n = 0;
    c->bookings[key].pieces = NULL;
    c->count--;
    for (i32 n = 0; n < piece_count(out); n++) {
        Place piece = piece_of(out, n);
        give(c, key, &piece);
    }
    return c->is_broken ? NO_MEMORY : 0;
}

static i32 walk(const Calendar *c, i32 host, i32 set, i64 start, const Fit *fit, Stretch *pieces);

/* Book a place; the pieces are those that its windows make of it. */
static i32 book_at(Calendar *c, i32 key, const Place *place, const Fit *fit, i64 due) {
    Booking booking = {*place, *fit, due, 1, 0, NULL};
    if (fit->lead != ONE_PIECE) {
        Stretch pieces[MOST_PIECES];
        i32 n = walk(c, place->host, place->set, place->start, fit, pieces);
        if (!n || pieces[n - 1].end != place->end) return BUSY;
        if (n > 1) {
            booking.pieces = malloc((size_t)n * sizeof(Stretch));
            if (!booking.pieces) { c->is_broken = 1; return NO_MEMORY; }
            memcpy(booking.pieces, pieces, (size_t)n * sizeof(Stretch));
            booking.n = n;
        }
    }
    return put_in(c, key, &booking);
}

i32 calendar_book(Calendar *c, i32 key, const Place *place, const Fit *fit, i64 due) {
    if (c->is_broken) return NO_MEMORY;
    if (key < 0) return NO_PLACE;
    if (is_booked(c, key)) return TAKEN;
    if (fit->lead == ONE_PIECE && !calendar_is_free(c, place->host, place->set, place->start, place->end)) return BUSY;
    return book_at(c, key, place, fit, due);
}

/* Book pieces as they are, whatever windows there are. */
i32 calendar_book_pieces(
    Calendar *c, i32 key, i32 host, i32 set, const i64 *starts, const i64 *ends, i32 n, const Fit *fit, i64 due
) {
    if (c->is_broken) return NO_MEMORY;
    if (key < 0 || n < 1) return NO_PLACE;
    if (is_booked(c, key)) return TAKEN;
    for (i32 i = 0; i < n; i++) if (!calendar_is_free(c, host, set, starts[i], ends[i])) return BUSY;
    Booking booking = {{starts[0], ends[n - 1], host, set}, *fit, due, 1, 0, NULL};
    if (n > 1) {
        booking.pieces = malloc((size_t)n * sizeof(Stretch));
        if (!booking.pieces) { c->is_broken = 1; return NO_MEMORY; }
        for (i32 i = 0; i < n; i++) booking.pieces[i] = (Stretch){starts[i], ends[i]};
        booking.n = n;
    }
    return put_in(c, key, &booking);
}

i32 calendar_free_key(Calendar *c, i32 key) {
    Booking out;
    i32 outcome = take_out(c, key, &out);
    if (outcome != NO_PLACE && !c->is_broken) free(out.pieces);
    return outcome;
}

i32 calendar_booking(const Calendar *c, i32 key, Place *place, Fit *fit, i64 *due) {
    if (!is_booked(c, key)) return NO_PLACE;
    *place = c->bookings[key].place;
    *fit = c->bookings[key].fit;
    *due = c->bookings[key].due;
    return c->bookings[key].n;
}

i32 calendar_pieces(const Calendar *c, i32 key, i64 *starts, i64 *ends) {
    if (!is_booked(c, key)) return NO_PLACE;
    const Booking *booking = &c->bookings[key];
    for (i32 n = 0; n < piece_count(booking); n++) {
        Place piece = piece_of(booking, n);
        starts[n] = piece.start;
        ends[n] = piece.end;
    }
    return piece_count(booking);
}

i32 calendar_set_due(Calendar *c, i32 key, i64 due) {
    if (!is_booked(c, key)) return NO_PLACE;
    c->bookings[key].due = due;
    return 0;
}

i32 calendar_count(const Calendar *c) { return c->count; }

i32 calendar_end_at(Calendar *c, i32 key, i64 end) {
    if (c->is_broken) return NO_MEMORY;
    if (!is_booked(c, key) || c->bookings[key].n) return NO_PLACE;
    Place place = c->bookings[key].place;
    if (end > place.end && !calendar_is_free(c, place.host, place.set, place.end, end)) return BUSY;
    give(c, key, &place);
    c->bookings[key].place.end = end;
    place.end = end;
    take(c, key, &place);
    return c->is_broken ? NO_MEMORY : 0;
}

/* ---- asking */

/* Whether a host has room for one that starts now. */
static int has_room_now(const Calendar *c, i32 number, const Fit *fit) {
    const Room *room = fit->room;
    if (!room || room->until[number] >= c->now + fit->whole + room->kept) return 1;
    return c->hosts[number].label == room->label && room->until[number] >= room->own;
}

/* The latest start for which a host has room; where it has been booked before, it has. */
static i64 latest_in_room(const Calendar *c, i32 number, const Fit *fit) {
    const Room *room = fit->room;
    if (!room || c->hosts[number].label == room->label) return FOREVER;
    return room->until[number] - room->kept - fit->whole;
}

static int may_use(const Calendar *c, i32 number, const Fit *fit) {
    const Host *host = &c->hosts[number];
    if (fit->kind >= 0 && host->kind != fit->kind) return 0;
    return (fit->label < 0 || host->label == fit->label) && (!host->silent || fit->silent);
}

static i32 level(const Calendar *c, i32 number, i32 set, i64 at) {
    const Host *host = &c->hosts[number];
    const Kind *kind = &c->kinds[host->kind];
    for (i32 n = 0; n < kind->around_count[set]; n++) {
        const Gaps *gaps = &host->gaps[kind->around[set][n]];
        i32 found = ends_after(gaps->at, gaps->n, at);
        if (found == gaps->n || gaps->at[found].start > at) return n;
    }
    return kind->around_count[set];
}

static const Stretches *stretches_of(const Calendar *c, i32 shape, i32 host) {
    const Shape *mine = &c->shapes[shape];
    return host < mine->n && mine->hosts[host].starts ? &mine->hosts[host] : NULL;
}

static i32 first_ending_after(const i64 *ends, i32 n, i64 instant) {
    i32 low = 0, high = n;
    while (low < high) {
        i32 middle = (low + high) / 2;
        if (ends[middle] > instant) high = middle; else low = middle + 1;
    }
    return low;
}

static int is_free_of(const Calendar *c, i32 host, i32 set, i64 start, i64 end) {
    return set < 0 || calendar_is_free(c, host, set, start, end);
}

/* The pieces of a booking that starts at an instant, each to its stretch's end but the last; return how many.

   0: it cannot start there, for a window, its end, or somebody in the way. With `set` < 0 nobody is in the way. */
static i32 walk(const Calendar *c, i32 host, i32 set, i64 start, const Fit *fit, Stretch *pieces) {
    const Stretches *s = fit->shape < 0 ? NULL : stretches_of(c, fit->shape, host);
    if (!s) return 0;
    i64 run = fit->whole - fit->lead, begin = start;
    i32 count = 0;
    for (i32 n = first_ending_after(s->ends, s->n, start); n < s->n && count < MOST_PIECES; n++) {
        if (!count && s->starts[n] > start) return 0;
        begin = count ? s->starts[n] : start;
        i64 end = begin + later(fit->lead + run, fit->shortest);
        int is_last = end <= s->ends[n];
        if (!is_last && count && begin + fit->shortest > s->ends[n]) continue;
        if (!is_last && (!s->parks[n] || begin + fit->shortest > s->ends[n])) return 0;
        if (!is_last) end = s->ends[n];
        if (end > fit->end_by || !is_free_of(c, host, set, begin, end)) return 0;
        pieces[count++] = (Stretch){begin, end};
        if (is_last) return count;
        run -= end - begin - fit->lead;
    }
    return 0;
}

/* How much of a booking's time the stretches from one on can take, up to the first that is not free all through. */
static i64 room_from(const Calendar *c, i32 host, i32 set, const Stretches *s, i32 n, const Fit *fit) {
    i64 room = 0, full = 0;
    for (i32 count = 1; n < s->n && count < MOST_PIECES; n++) {
        i64 begin = s->starts[n];
        if (begin + fit->shortest > s->ends[n]) continue;
        i64 until = sooner(sooner(calendar_free_until(c, host, set, begin), fit->end_by), s->ends[n]);
        if (until - begin >= fit->shortest) room = full + until - begin - fit->lead;
        if (until < s->ends[n] || !s->parks[n]) break;
        full += until - begin - fit->lead;
        count++;
    }
    return room;
}

i32 calendar_walk(const Calendar *c, i32 host, i32 set, i64 start, const Fit *fit, i64 *starts, i64 *ends) {
    Stretch pieces[MOST_PIECES];
    i32 count = walk(c, host, set, start, fit, pieces);
    for (i32 n = 0; n < count; n++) { starts[n] = pieces[n].start; ends[n] = pieces[n].end; }
    return count;
}

static int fit_in(
    const Calendar *c, i32 host, i32 set, i64 begin_at, i64 start, i64 gap_end, const Fit *fit, i64 before_at, i64 *at,
    i64 *until
) {
    start = later(start, begin_at);
    if (fit->shape < 0) {
        *at = start;
        *until = start + fit->whole;
        return *until <= gap_end && start <= before_at;
    }
    const Stretches *s = stretches_of(c, fit->shape, host);
    if (!s) return 0;
    for (i32 n = first_ending_after(s->ends, s->n, start); n < s->n && s->starts[n] < gap_end; n++) {
        i64 begin = later(start, s->starts[n]);
        *at = begin;
        *until = begin + fit->whole;
        if (begin > before_at || *until > fit->end_by) return 0;
        if (*until <= sooner(gap_end, s->ends[n])) return 1;
        *until = s->ends[n];
        if (!s->parks[n] || s->ends[n] > gap_end || begin + fit->shortest > s->ends[n]) continue;
        if (fit->lead == ONE_PIECE) return 1;
        Stretch pieces[MOST_PIECES];
        i32 count = walk(c, host, set, begin, fit, pieces);
        if (!count) continue;
        *until = pieces[count - 1].end;
        return 1;
    }
    return 0;
}

/* The hosts on which some set of a size has nothing booked now and may be begun; return how many. */
i32 calendar_free_hosts(const Calendar *c, i32 size, i32 *hosts) {
    i32 count = 0;
    if (size < 0 || size > MOST_GPUS) return 0;
    const Index *index = &c->by_size[size];
    for (i32 number = 0; number < index->n; number++) {
        const Chunk *chunk = &index->chunks[number];
        for (i32 n = 0; n < chunk->n; n++) {
            const Place *gap = &chunk->gaps[n];
            if (gap->start != BEGUN) return count;
            const Host *host = &c->hosts[gap->host];
            if (gap->end <= c->now || host->silent || host->begin[gap->set] > c->now) continue;
            if (!count || hosts[count - 1] != gap->host) hosts[count++] = gap->host;
        }
    }
    return count;
}

i32 calendar_earliest(Calendar *c, const Fit *fit, i64 from, i64 latest_at, Place *best) {
    if (fit->size < 0 || fit->size > MOST_GPUS) return NO_PLACE;
    Index *index = &c->by_size[fit->size];
    from = later(from, c->now);
    int has_best = 0;
    i64 best_at = latest_at + 1;
    i32 best_level = 0, tied = 0;
    for (i32 number = 0; number < index->n; number++) {
        Chunk *chunk = &index->chunks[number];
        if (chunk->gaps[0].start >= best_at && chunk->gaps[0].start > from) break;
        if (chunk->longest < fit->shortest || chunk->latest < from + fit->shortest) continue;
        int fitted = 0;
        for (i32 n = 0; n < chunk->n; n++) {
            const Place *gap = &chunk->gaps[n];
            if (gap->start >= best_at && gap->start > from) break;
            i64 start = later(gap->start, from), at, until;
            if (gap->end - start < fit->shortest) continue;
            fitted = 1;
            if (fit->first) start = later(start, fit->first[gap->host]);
            if (!may_use(c, gap->host, fit) || !has_room_now(c, gap->host, fit)) continue;
            i64 begin_at = c->hosts[gap->host].begin[gap->set];
            if (!fit_in(c, gap->host, gap->set, begin_at, start, gap->end, fit, best_at, &at, &until)) continue;
            if (at < best_at) {
                *best = (Place){at, until, gap->host, gap->set};
                best_at = at;
                has_best = 1;
                tied = 1;
                best_level = level(c, gap->host, gap->set, at);
            } else if (tied < MOST_TIED) {
                tied++;
                i32 mine = level(c, gap->host, gap->set, at);
                if (mine < best_level) { *best = (Place){at, until, gap->host, gap->set}; best_level = mine; }
            }
            if (has_best && best_at == from && (best_level == 0 || tied >= MOST_TIED)) return 0;
        }
        if (!fitted) tighten(c, chunk);
    }
    return has_best ? 0 : NO_PLACE;
}

/* The latest start in `[low, start]` in a gap of a set. */
static i64 fit_late(const Calendar *c, i32 host, i32 set, i64 low, i64 start, i64 gap_end, const Fit *fit) {
    if (start < low) return -1;
    if (fit->shape < 0) return start;
    const Stretches *s = stretches_of(c, fit->shape, host);
    if (!s) return -1;
    for (i32 n = first_ending_after(s->starts, s->n, start) - 1; n >= 0 && s->ends[n] > low; n--) {
        i64 late = sooner(start, s->ends[n] - fit->whole);
        if (fit->lead != ONE_PIECE) {
            i64 most = sooner(start, s->ends[n] - fit->shortest);
            late = sooner(late, sooner(gap_end, fit->end_by) - fit->whole);
            if (late < most && s->parks[n] && s->ends[n] <= gap_end) {
                i64 rest = fit->whole - room_from(c, host, set, s, n + 1, fit);
                if (rest < fit->whole) late = later(late, sooner(most, s->ends[n] - rest));
            }
        }
        if (late >= later(low, s->starts[n])) return late;
    }
    return -1;
}

/* Work out the end of a place that was found. */
static i32 end_of(const Calendar *c, const Fit *fit, Place *place) {
    if (fit->lead == ONE_PIECE) return 0;
    Stretch pieces[MOST_PIECES];
    i32 n = walk(c, place->host, place->set, place->start, fit, pieces);
    if (!n) return NO_PLACE;
    place->end = pieces[n - 1].end;
    return 0;
}

i32 calendar_latest(Calendar *c, const Fit *fit, i64 from, i64 latest_at, Place *best) {
    from = later(from, c->now);
    if (fit->size < 0 || fit->size > MOST_GPUS || latest_at < from) return NO_PLACE;
    Index *index = &c->by_size[fit->size];
    int is_one = fit->lead == ONE_PIECE;
    i64 whole = is_one ? fit->whole : fit->shortest, best_at = from - 1, now = c->now;
    int has_best = 0;
    Place probe = {latest_at, 0, INT32_MAX, INT32_MAX};
    for (i32 number = chunks_up_to(index, &probe) - 1; number >= 0; number--) {
        Chunk *chunk = &index->chunks[number];
        if (chunk->latest - whole <= best_at || chunk->longest < whole) continue;
        int fitted = 0;
        for (i32 n = chunk->n - 1; n >= 0; n--) {
            const Place *gap = &chunk->gaps[n];
            if (gap->start > latest_at) { fitted = 1; continue; }
            i64 start = sooner(latest_at, gap->end - whole), low = later(gap->start, from);
            if (gap->end - whole >= now && gap->end - later(gap->start, now) >= whole) fitted = 1;
            if (start < low || start <= best_at) continue;
            start = sooner(start, latest_in_room(c, gap->host, fit));
            if (start < low || start <= best_at || !may_use(c, gap->host, fit)) continue;
            i64 begin_at = c->hosts[gap->host].begin[gap->set];
            i64 found = fit_late(c, gap->host, gap->set, later(low, begin_at), start, gap->end, fit);
            if (found <= best_at) continue;
            *best = (Place){found, found + fit->whole, gap->host, gap->set};
            best_at = found;
            has_best = 1;
            if (found == latest_at) return end_of(c, fit, best);
        }
        if (!fitted) tighten(c, chunk);
    }
    return has_best ? end_of(c, fit, best) : NO_PLACE;
}

static int smaller_first(const void *a, const void *b) {
    i32 x = *(const i32 *)a, y = *(const i32 *)b;
    return (x > y) - (x < y);
}

/* Begin to collect bookings, each once. */
static i32 begin_collecting(Calendar *c) {
    if (c->stamp_room < c->room) {
        i32 was = c->stamp_room;
        c->stamp = grown(c, c->stamp, &c->stamp_room, c->room, sizeof(i32));
        if (c->is_broken) return NO_MEMORY;
        memset(&c->stamp[was], 0, (size_t)(c->stamp_room - was) * sizeof(i32));
    }
    c->stamp_now++;
    return 0;
}

/* The bookings on any GPU of a set in a span, by number; up to `most` of them, then `most + 1` is returned. */
i32 calendar_conflicts(Calendar *c, i32 number, i32 set, i64 start, i64 end, i32 *keys, i32 most) {
    const Host *host = &c->hosts[number];
    const Kind *kind = &c->kinds[host->kind];
    i32 count = 0;
    if (begin_collecting(c)) return NO_MEMORY;
    for (i32 g = 0; g < kind->gpus; g++) {
        if (!(kind->masks[set] >> g & 1)) continue;
        const Line *line = &host->lines[g];
        for (i32 at = busy_after(line, start); at < line->n && line->at[at].start < end; at++) {
            i32 key = line->at[at].key;
            if (c->stamp[key] == c->stamp_now) continue;
            c->stamp[key] = c->stamp_now;
            if (count == most) return most + 1;
            keys[count++] = key;
        }
    }
    qsort(keys, (size_t)count, sizeof(i32), smaller_first);
    return count;
}

/* Book requests at their earliest places, one after the other; return how many found one. Their keys count up. */
i32 calendar_book_all(Calendar *c, i32 key, const i32 *sizes, const i64 *wholes, i32 n, i64 from, i64 *starts) {
    for (i32 i = 0; i < n; i++) {
        Fit fit = {sizes[i], wholes[i], wholes[i], -1, -1, 0, -1, ONE_PIECE, FOREVER, NULL, NULL};
        Place place;
        if (calendar_earliest(c, &fit, from, FOREVER, &place)) return i;
        if (calendar_book(c, key + i, &place, &fit, FIXED)) return NO_MEMORY;
        starts[i] = place.start;
    }
    return n;
}

/* ---- the plan that keeps every promise */

static int is_whole(const Fit *fit, const Place *place) {
    return fit->lead != ONE_PIECE || place->end - place->start == fit->whole;
}

/* Book one that was taken out at a place if that was found, else where it was; return whether it has moved. */
static i32 book_or_back(Calendar *c, i32 key, Booking *before, const Place *place, i32 is_found) {
    if (!is_found) return put_in(c, key, before);
    free(before->pieces);
    i32 outcome = book_at(c, key, place, &before->fit, before->due);
    return outcome ? NO_MEMORY : 1;
}

i32 calendar_compact(Calendar *c, const i32 *keys, i32 n, i32 *moved) {
    i32 count = 0;
    for (i32 i = 0; i < n; i++) {
        Booking booking;
        i32 outcome = take_out(c, keys[i], &booking);
        if (outcome) return outcome;
        Place place;
        int is_found = !calendar_earliest(c, &booking.fit, c->now, booking.place.start - 1, &place)
            && is_whole(&booking.fit, &place);
        outcome = book_or_back(c, keys[i], &booking, &place, is_found);
        if (outcome < 0) return outcome;
        if (outcome) moved[count++] = keys[i];
    }
    return count;
}

i32 calendar_relax(Calendar *c, const i32 *keys, i32 n, i32 *moved) {
    i32 count = 0;
    for (i32 i = 0; i < n; i++) {
        Booking booking;
        i32 outcome = take_out(c, keys[i], &booking);
        if (outcome) return outcome;
        Place place;
        int is_found = !calendar_latest(c, &booking.fit, booking.place.start + 1, booking.due, &place);
        outcome = book_or_back(c, keys[i], &booking, &place, is_found);
        if (outcome < 0) return outcome;
        if (outcome) moved[count++] = keys[i];
    }
    return count;
}

/* Book bookings anew in this order, each at its earliest place by its promise, and return 1; or leave all as it is. */
i32 calendar_rebook(Calendar *c, const i32 *keys, i32 n, i64 most_gpu_s, i64 *total) {
    for (i32 i = 0; i < n; i++) if (!is_booked(c, keys[i])) return NO_PLACE;
    Booking *before = calloc(n > 0 ? (size_t)n : 1, sizeof(Booking));
    if (!before) return NO_MEMORY;
    i32 done = 0, outcome = 0;
    *total = 0;
    for (i32 i = 0; i < n && !outcome; i++) outcome = take_out(c, keys[i], &before[i]);
    for (; done < n && !outcome; done++) {
        const Booking *b = &before[done];
        Place place;
        if (calendar_earliest(c, &b->fit, c->now, b->due, &place) || !is_whole(&b->fit, &place)) break;
        *total += (i64)b->fit.size * (place.start - c->now);
        if (*total > most_gpu_s) break;
        outcome = book_at(c, keys[done], &place, &b->fit, b->due);
    }
    for (i32 i = 0; i < done && done < n && !outcome; i++) outcome = calendar_free_key(c, keys[i]);
    for (i32 i = 0; i < n && !outcome; i++) {
        if (done < n) outcome = put_in(c, keys[i], &before[i]);
        else free(before[i].pieces);
    }
    free(before);
    return outcome ? NO_MEMORY : done == n;
}

typedef struct { i64 weight; Place place; i32 keys[MOST_DISPLACED]; i32 n; } Option;

/* Move others out of the way of a booking that was taken out, to where their promises allow; or leave all as it is. */
static i32 displace(
    Calendar *c, i32 key, const Booking *mine, const Option *option, const i64 *rooms, i64 kept, i32 *moved
) {
    Booking taken[MOST_DISPLACED];
    i32 order[MOST_DISPLACED], n = option->n, done = 0;
    for (i32 i = 0; i < n; i++) {
        i32 other = option->keys[i], at = i;
        Booking booking;
        if (take_out(c, other, &booking)) return NO_MEMORY;
        for (; at > 0; at--) {
            const Booking *b = &taken[at - 1];
            if (b->due != booking.due ? b->due < booking.due : b->fit.size >= booking.fit.size) break;
            taken[at] = taken[at - 1];
            order[at] = order[at - 1];
        }
        taken[at] = booking;
        order[at] = other;
    }
    if (book_at(c, key, &option->place, &mine->fit, mine->due)) return NO_MEMORY;
    for (; done < n; done++) {
        Place late;
        Fit fit = taken[done].fit;
        Room room = {rooms, kept, taken[done].place.start, c->hosts[taken[done].place.host].label};
        if (rooms) fit.room = &room;
        if (calendar_latest(c, &fit, c->now, taken[done].due, &late)) break;
        if (book_at(c, order[done], &late, &taken[done].fit, taken[done].due)) return NO_MEMORY;
        moved[done + 1] = order[done];
    }
    moved[0] = key;
    if (done == n) {
        for (i32 i = 0; i < n; i++) free(taken[i].pieces);
        return n + 1;
    }
    for (i32 i = 0; i < done; i++) if (calendar_free_key(c, order[i])) return NO_MEMORY;
    if (calendar_free_key(c, key)) return NO_MEMORY;
    for (i32 i = 0; i < n; i++) if (put_in(c, order[i], &taken[i])) return NO_MEMORY;
    return 0;
}

/* The pieces of a booking that starts now on a host, whoever is in the way; 0 if windows do not let it. */
static i32 pieces_now(const Calendar *c, const Fit *fit, i32 host, Stretch *pieces) {
    i64 now = c->now, at, until;
    if (fit->lead != ONE_PIECE) return walk(c, host, -1, now, fit, pieces);
    if (!fit_in(c, host, -1, 0, now, FOREVER, fit, now, &at, &until) || at != now || until != now + fit->whole) return 0;
    pieces[0] = (Stretch){at, until};
    return 1;
}

/* Find who else is in the way of a booking on a set; return 0 if not all of them may give way. */
static i32 look_at(
    Calendar *c, i32 own, const Stretch *pieces, i32 n, i32 number, i32 set, i32 widest, i32 most, Option *option
) {
    const Host *host = &c->hosts[number];
    const Kind *kind = &c->kinds[host->kind];
    i32 count = 0;
    i64 weight = 0;
    if (begin_collecting(c)) return NO_MEMORY;
    c->stamp[own] = c->stamp_now;
    for (i32 i = 0; i < n; i++) {
        for (i32 g = 0; g < kind->gpus; g++) {
            if (!(kind->masks[set] >> g & 1)) continue;
            const Line *line = &host->lines[g];
            for (i32 at = busy_after(line, pieces[i].start); at < line->n && line->at[at].start < pieces[i].end; at++) {
                i32 key = line->at[at].key;
                if (c->stamp[key] == c->stamp_now) continue;
                c->stamp[key] = c->stamp_now;
                const Booking *b = &c->bookings[key];
                if (count == most || b->due < b->place.start || b->fit.size > widest) return 0;
                option->keys[count++] = key;
                weight += (i64)b->fit.size * b->fit.whole;
            }
        }
    }
    qsort(option->keys, (size_t)count, sizeof(i32), smaller_first);
    option->n = count;
    option->weight = weight;
    option->place = (Place){pieces[0].start, pieces[n - 1].end, number, set};
    return 1;
}

/* Return how many bookings moved, itself first; 0: it cannot start now, and nothing moved.

   `rooms`: until when each host has room for what it keeps for `kept` behind its end; NULL: all for ever. */
i32 calendar_start_now(
    Calendar *c, i32 key, i32 widest, i32 most, const i64 *rooms, i64 kept, i32 *moved
) {
    if (most > MOST_DISPLACED) most = MOST_DISPLACED;
    if (!is_booked(c, key)) return NO_PLACE;
    const Booking *booked = &c->bookings[key];
    Fit fit = booked->fit;
    i64 now = c->now;
    Room room = {rooms, kept, booked->place.start, c->hosts[booked->place.host].label};
    if (rooms) fit.room = &room;
    Option options[MOST_TRIES + 1];
    Stretch pieces[MOST_PIECES];
    i32 option_count = 0, seen = 0, on_host = -1, n_pieces = 0;
    Index *index = &c->by_size[fit.size];
    for (i32 number = 0; number < index->n; number++) {
        Chunk *chunk = &index->chunks[number];
        for (i32 n = 0; n < chunk->n; n++) {
            const Place *gap = &chunk->gaps[n];
            if (gap->start != BEGUN || seen == MOST_FREE) goto ranked;
            if (gap->end <= now || !has_room_now(c, gap->host, &fit)) continue;
            seen++;
            if (!may_use(c, gap->host, &fit) || c->hosts[gap->host].begin[gap->set] > now) continue;
            if (gap->host != on_host) {
                on_host = gap->host;
                n_pieces = pieces_now(c, &fit, on_host, pieces);
            }
            if (!n_pieces) continue;
            Option option;
            i32 may = look_at(c, key, pieces, n_pieces, gap->host, gap->set, widest, most, &option);
            if (may < 0) return may;
            if (!may) continue;
            i32 slot = option_count;
            while (slot > 0 && options[slot - 1].weight > option.weight) { options[slot] = options[slot - 1]; slot--; }
            options[slot] = option;
            if (option_count < MOST_TRIES) option_count++;
            if (!option.n) goto ranked;
        }
    }
ranked:
    /* Where there are more sets than are looked at here, nobody may be in the way on one of them. */
    if (!option_count && seen < MOST_FREE) return 0;
    Booking mine;
    i32 outcome = take_out(c, key, &mine);
    if (outcome) return outcome;
    Place place;
    int may_be_free = seen == MOST_FREE || !options[0].n;
    if (may_be_free && !calendar_earliest(c, &fit, now, now, &place) && is_whole(&fit, &place)) {
        moved[0] = key;
        return book_or_back(c, key, &mine, &place, 1);
    }
    for (i32 i = 0; i < option_count; i++) {
        i32 count = displace(c, key, &mine, &options[i], rooms, kept, moved);
        if (count > 0) free(mine.pieces);
        if (count) return count;
    }
    return book_or_back(c, key, &mine, NULL, 0);
}

/* Start the first of some that can start now; return how many bookings moved, as above, and which one it was. */
i32 calendar_start_first(
    Calendar *c, const i32 *keys, const i32 *widest, i32 n, i32 most, const i64 *rooms, i64 kept, i32 *moved,
    i32 *which
) {
    for (i32 i = 0; i < n; i++) {
        i32 count = calendar_start_now(c, keys[i], widest[i], most, rooms, kept, moved);
        if (count) {
            *which = i;
            return count;
        }
    }
    return 0;
}
