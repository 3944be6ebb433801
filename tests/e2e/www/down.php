<?php
// A body of ?bytes=N that the test can make, too.
$left = (int) $_GET['bytes'];
header('Content-Type: application/octet-stream');
if (isset($_GET['announce'])) {
    header('Content-Length: ' . $left);
}
$block = str_repeat(implode('', array_map('chr', range(0, 255))), 256);
while ($left > 0) {
    $part = substr($block, 0, min($left, strlen($block)));
    echo $part;
    $left -= strlen($part);
}
