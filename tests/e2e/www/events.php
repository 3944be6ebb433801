<?php
// Server-sent events: the second one only when the test has seen the first.
require __DIR__ . '/sync.inc';
header('Content-Type: text/event-stream');
header('X-Accel-Buffering: no');
while (ob_get_level() > 0) {
    ob_end_flush();
}
echo "data: first\n\n";
flush();
sync_wait('events-' . $_GET['token']);
echo "data: second\n\n";
