/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_DOCTOR_CHECKS_H
#define SIDECAR_DOCTOR_CHECKS_H

/*
 * What the doctor looks at. Each check prints its findings, one line or more, and changes nothing.
 * All borrow what they are given.
 */

#include "fcgi/span.h"
#include "sidecar/config.h"
#include "sidecar/doctor/report.h"

/* How long a peer may take to answer. */
#define DOCTOR_PATIENCE_MS 5000

/* Those that need the rights of the one who started us, root as a rule: they look at other
 * processes. */
void check_private_tmp(struct report *report, const struct config *config);
void check_descriptors(struct report *report, const struct config *config);

/* Whether the service runs, without connecting: systemd would start it for that. Unix sockets. */
void check_listeners(struct report *report, const struct config *config);
/* Whether nginx's user, a word of its `user` directive, has the right to connect. Needs root. */
void check_front_rights(struct report *report, const struct config *config, const char *user);

/* Those that must be done with the rights of the service. */
void check_php_fpm(struct report *report, const struct config *config);
void check_velox(struct report *report, const struct config *config);
void check_roots(struct report *report, const struct config *config);
void check_folders(struct report *report, const struct config *config); /* cache, spool */

/* The same with any rights. */
void check_kernel(struct report *report, const struct config *config);

/* text: what `nginx -T` printed. */
void check_nginx(struct report *report, const struct config *config, struct span text);

#endif
