<?php
// Writes until nobody takes it any more; then makes a file.
require __DIR__ . '/sync.inc';
register_shutdown_function(fn() => sync_make('endless-' . $_GET['token']));
header('Content-Type: application/octet-stream');
$block = str_repeat('x', 1 << 16);
for ($deadline = microtime(true) + 20; microtime(true) < $deadline;) {
    echo $block;
}
