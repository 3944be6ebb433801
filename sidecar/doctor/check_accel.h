/* SPDX-License-Identifier: MIT */
#ifndef SIDECAR_DOCTOR_CHECK_ACCEL_H
#define SIDECAR_DOCTOR_CHECK_ACCEL_H

#include "sidecar/config.h"
#include "sidecar/doctor/nginx_dump.h"
#include "sidecar/doctor/report.h"

/* Nginx's side of delivery = x-accel-redirect; nothing is said where that is not set. first: of the
 * whole configuration, may be NULL. Only check_nginx.c uses it. */
void check_accel(struct report *report, const struct config *config,
                 const struct nginx_directive *first);

#endif
