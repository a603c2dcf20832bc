/* A ring of socket pairs on libevent, like that of benches/src/pairs.rs on other loops.
 *
 * bench PAIRS ACTIVE WRITES prints the time of one round in nanoseconds, after one that is not measured. */

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int pairs, to_write, to_read;
static int *writers;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void put(int pair)
{
	if (write(writers[pair], "e", 1) != 1)
		fail("write");
}

static void pass(evutil_socket_t reader, short what, void *argument)
{
	int pair = (int)(long)argument;
	char buffer[256];
	ssize_t count = read(reader, buffer, sizeof buffer);
	(void)what;
	if (count <= 0)
		fail("read");
	to_read -= (int)count;
	/* The neighbour is the pair before, so that bytes do not run together in one read. */
	int neighbour = pair > 0 ? pair - 1 : pairs - 1;
	for (; count > 0 && to_write > 0; count--) {
		to_write--;
		put(neighbour);
	}
}

static long long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long play(struct event_base *base, int active, int writes)
{
	to_write = writes;
	to_read = writes + active;
	long long start = now();
	for (int n = 0; n < active; n++)
		put((int)((long long)n * pairs / active));
	while (to_read > 0)
		if (event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK) < 0)
			fail("event_base_loop");
	return now() - start;
}

int main(int count, char **arguments)
{
	if (count != 4) {
		fprintf(stderr, "bench PAIRS ACTIVE WRITES\n");
		return 2;
	}
	pairs = atoi(arguments[1]);
	int active = atoi(arguments[2]), writes = atoi(arguments[3]);
	struct event_base *base = event_base_new();
	writers = calloc((size_t)pairs, sizeof *writers);
	if (base == NULL || writers == NULL)
		fail("event_base_new");
	for (long pair = 0; pair < pairs; pair++) {
		evutil_socket_t ends[2];
		if (evutil_socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
			fail("socketpair");
		evutil_make_socket_nonblocking(ends[0]);
		evutil_make_socket_nonblocking(ends[1]);
		writers[pair] = ends[1];
		/* Notified only of changes, as the others are. */
		short what = EV_READ | EV_PERSIST | EV_ET;
		struct event *event = event_new(base, ends[0], what, pass, (void *)pair);
		if (event == NULL || event_add(event, NULL) != 0)
			fail("event_add");
	}
	play(base, active, writes);
	printf("%lld\n", play(base, active, writes));
	return 0;
}
