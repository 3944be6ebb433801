/* SPDX-License-Identifier: MIT */
/* Addresses, networks, and the calls on real sockets. */

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sidecar/io/sock.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        int result;
        int family;
    } cases[] = {
        { "unix:/run/x.sock", 0, AF_UNIX },
        { "unix:relative", -EINVAL, 0 },
        { "unix:", -EINVAL, 0 },
        { "127.0.0.1:9000", 0, AF_INET },
        { "127.0.0.1:65535", 0, AF_INET },
        { "127.0.0.1:65536", -EINVAL, 0 },
        { "127.0.0.1:0", -EINVAL, 0 },
        { "127.0.0.1:", -EINVAL, 0 },
        { "127.0.0.1", -EINVAL, 0 },
        { "127.0.0.1:-1", -EINVAL, 0 },
        { "127.0.0.1:+1", -EINVAL, 0 },
        { "127.0.0.1: 1", -EINVAL, 0 },
        { "127.0.0.1:90x", -EINVAL, 0 },
        { "127.0.0.1:99999999999999999999", -EINVAL, 0 },
        { "[::1]:9000", 0, AF_INET6 },
        { "[::]:1", 0, AF_INET6 },
        { "::1:9000", -EINVAL, 0 },
        { "[::1]9000", -EINVAL, 0 },
        { "[]:9000", -EINVAL, 0 },
        { "[::1:9000", -EINVAL, 0 },
        { "[name]:9000", -EINVAL, 0 },
        { ":9000", -EINVAL, 0 },
        { "9000", -EINVAL, 0 },
        { "", -EINVAL, 0 },
        { "no..such..host:9000", -EHOSTUNREACH, 0 },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sock_address address = { .length = 12345 };
        int result = sock_address_parse(cases[i].text, &address);

        if (result != cases[i].result) {
            fail_msg("%s: %d instead of %d", cases[i].text, result, cases[i].result);
        }
        if (result == 0) {
            assert_int_equal(address.storage.ss_family, cases[i].family);
            assert_string_equal(address.text, cases[i].text);
            assert_int_equal(sock_address_is_unix(&address), cases[i].family == AF_UNIX);
        } else {
            assert_int_equal(address.length, 12345);
        }
    }
}

static void test_long_addresses(void **state)
{
    struct sock_address address;
    char text[200] = "unix:/";

    (void)state;
    memset(text + 6, 'a', 106);
    assert_int_equal(sock_address_parse(text, &address), 0);
    text[112] = 'a';
    assert_int_equal(sock_address_parse(text, &address), -ENAMETOOLONG);
    memset(text, 'a', 150);
    assert_int_equal(sock_address_parse(text, &address), -ENAMETOOLONG);
}

static void fill_peer(const char *text, struct sockaddr_storage *peer)
{
    struct sockaddr_in *ipv4 = (struct sockaddr_in *)(void *)peer;
    struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)(void *)peer;

    memset(peer, 0, sizeof(*peer));
    if (inet_pton(AF_INET, text, &ipv4->sin_addr) == 1) {
        peer->ss_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &ipv6->sin6_addr), 1);
        peer->ss_family = AF_INET6;
    }
}

static void test_networks(void **state)
{
    static const struct {
        const char *network; /* NULL: none is set */
        const char *peer;
        bool allowed;
    } cases[] = {
        { NULL, "127.0.0.1", true },
        { NULL, "127.255.1.2", true },
        { NULL, "128.0.0.1", false },
        { NULL, "::1", true },
        { NULL, "::2", false },
        { NULL, "::ffff:127.0.0.1", true },
        { NULL, "::ffff:10.0.0.1", false },
        { NULL, "::127.0.0.1", false },
        { "10.0.0.0/8", "10.255.0.1", true },
        { "10.0.0.0/8", "::ffff:10.1.1.1", true },
        { "10.0.0.0/8", "::10.1.1.1", false },
        { "10.0.0.0/8", "a00::1", false },
        { "10.0.0.0/8", "11.0.0.1", false },
        { "10.0.0.0/8", "127.0.0.1", false },
        { "10.1.2.3", "10.1.2.3", true },
        { "10.1.2.3", "10.1.2.2", false },
        { "10.1.2.3/31", "10.1.2.2", true },
        { "192.168.1.0/25", "192.168.1.127", true },
        { "192.168.1.0/25", "192.168.1.128", false },
        { "0.0.0.0/0", "203.0.113.9", true },
        { "0.0.0.0/0", "2001:db8::1", false },
        { "::/0", "203.0.113.9", true },
        { "::ffff:10.0.0.0/104", "10.9.9.9", true },
        { "2001:db8::1", "2001:db8::1", true },
        { "2001:db8::1", "2001:db8::2", false },
        { "2001:db8::1", "2001:db8:0:0:0:0:0:101", false },
        { "2001:db8::/33", "2001:db8:7fff::1", true },
        { "2001:db8::/33", "2001:db8:8000::1", false },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sock_network network;
        struct sockaddr_storage peer;
        size_t count = cases[i].network == NULL ? 0 : 1;

        if (count > 0) {
            assert_int_equal(sock_network_parse(cases[i].network, &network), 0);
        }
        fill_peer(cases[i].peer, &peer);
        if (sock_is_allowed(&peer, &network, count) != cases[i].allowed) {
            fail_msg("%s in %s", cases[i].peer, count > 0 ? cases[i].network : "loopback");
        }
    }
}

static void test_peers_without_an_ip_address(void **state)
{
    struct sock_network network;
    struct sockaddr_storage peer = { .ss_family = AF_UNIX };

    (void)state;
    assert_int_equal(sock_network_parse("10.0.0.1", &network), 0);
    assert_true(sock_is_allowed(&peer, &network, 1));
    peer.ss_family = AF_UNSPEC;
    assert_false(sock_is_allowed(&peer, &network, 1));
    assert_false(sock_is_allowed(&peer, NULL, 0));
}

static void test_wrong_networks(void **state)
{
    static const char *const wrong[] = {
        "",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0.0/8x",
        "10.0.0",
        "any",
        "::/129",
        "::/1000",
        "10.0.0.0/8/8",
        "localhost",
        " 10.0.0.0",
        "[::1]",
        "unix:/x",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc",
    };
    struct sock_network network;

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        assert_int_equal(sock_network_parse(wrong[i], &network), -EINVAL);
    }
}

struct place {
    char folder[32];
    struct sock_address address;
    int listener;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    char text[64];

    *state = place;
    strcpy(place->folder, "/tmp/test_sock.XXXXXX");
    if (mkdtemp(place->folder) == NULL) {
        return -1;
    }
    snprintf(text, sizeof(text), "unix:%s/s", place->folder);
    place->listener = -1;
    return sock_address_parse(text, &place->address);
}

static int tear_down(void **state)
{
    struct place *place = *state;

    if (place->listener >= 0) {
        close(place->listener);
    }
    unlink(place->address.text + 5);
    rmdir(place->folder);
    free(place);
    return 0;
}

static void assert_flags(int fd)
{
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static void test_unix_listen_and_connect(void **state)
{
    struct place *place = *state;
    struct stat info;
    int fd = -1;

    assert_int_equal(sock_connect(&place->address, &fd), -ENOENT);
    place->listener = sock_listen(&place->address, 8);
    assert_true(place->listener >= 0);
    assert_flags(place->listener);
    assert_int_equal(stat(place->address.text + 5, &info), 0);
    assert_int_equal(info.st_mode & 077, 0);
    assert_int_equal(sock_listen(&place->address, 8), -EADDRINUSE);
    assert_int_equal(fd, -1);
    assert_int_equal(sock_connect(&place->address, &fd), 0);
    assert_flags(fd);
    assert_int_equal(sock_error(fd), 0);
    sock_set_nodelay(fd);
    close(fd);
    close(place->listener);
    place->listener = -1;
    assert_int_equal(sock_connect(&place->address, &fd), -ECONNREFUSED);
}

static void test_unix_backlog_full(void **state)
{
    struct place *place = *state;
    int fds[16];
    size_t count = 0;
    int result = 0;

    place->listener = sock_listen(&place->address, 1);
    assert_true(place->listener >= 0);
    while (count < COUNT(fds)) {
        result = sock_connect(&place->address, &fds[count]);
        if (result != 0) {
            break;
        }
        count++;
    }
    assert_int_equal(result, -EAGAIN);
    assert_true(count > 0);
    while (count > 0) {
        close(fds[--count]);
    }
}

static void test_hang_up(void **state)
{
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_false(sock_is_hung_up(pair[0]));
    /* Half-closed, as lighttpd may do: not hung up. */
    assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
    assert_false(sock_is_hung_up(pair[0]));
    close(pair[1]);
    assert_true(sock_is_hung_up(pair[0]));
    close(pair[0]);
}

/* A TCP listener on a free port, and the address to reach it. */
static int listen_tcp(struct sock_address *address)
{
    int fd;

    assert_int_equal(sock_address_parse("127.0.0.1:1", address), 0);
    ((struct sockaddr_in *)(void *)&address->storage)->sin_port = 0;
    fd = sock_listen(address, 8);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address->storage, &address->length), 0);
    return fd;
}

static void wait_writable(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };

    assert_int_equal(poll(&poll_fd, 1, 10000), 1);
}

static void test_tcp(void **state)
{
    struct sock_address address;
    int listener = listen_tcp(&address);
    int fd = -1;
    int on = 0;
    socklen_t length = sizeof(on);
    int result = sock_connect(&address, &fd);

    (void)state;
    assert_true(result == 0 || result == -EINPROGRESS);
    assert_flags(fd);
    wait_writable(fd);
    assert_int_equal(sock_error(fd), 0);
    sock_set_nodelay(fd);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    assert_true(on != 0);
    close(fd);
    close(listener);
    /* Nobody listens there any more. */
    result = sock_connect(&address, &fd);
    if (result == -EINPROGRESS) {
        wait_writable(fd);
        result = sock_error(fd);
        close(fd);
    }
    assert_int_equal(result, -ECONNREFUSED);
}

static void test_send_buffer(void **state)
{
    int pair[2];
    int first;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    first = sock_raise_send_buffer(pair[0], 16384);
    assert_true(first >= 2 * 16384);
    /* Never lowered. */
    assert_true(sock_raise_send_buffer(pair[0], 4096) >= first);
    assert_int_equal(sock_raise_send_buffer(-1, 4096), -EBADF);
    assert_int_equal(sock_error(-1), -EBADF);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_long_addresses),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_peers_without_an_ip_address),
        cmocka_unit_test(test_wrong_networks),
        cmocka_unit_test_setup_teardown(test_unix_listen_and_connect, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unix_backlog_full, set_up, tear_down),
        cmocka_unit_test(test_hang_up),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_send_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
