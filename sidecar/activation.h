/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_ACTIVATION_H
#define SIDECAR_ACTIVATION_H

/*
 * Listeners that a service manager has opened and passes to us, as sd_listen_fds(3) describes it:
 * descriptors from 3 on, counted by $LISTEN_FDS, for the process $LISTEN_PID, named by
 * $LISTEN_FDNAMES. Their names say what is spoken there: fastcgi or scgi.
 */

#include "sidecar/listeners.h"

/*
 * Adds them; none is no mistake. The variables are removed, since they are not for our children.
 * 0; -EINVAL where a name is unknown or a descriptor is no listening stream socket; -ENOMEM. The
 * reason is logged.
 */
int activation_take(struct listeners *listeners, struct log *log);

#endif
