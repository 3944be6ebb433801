<?php
// A response head of about ?bytes=N.
header('Content-Type: text/plain');
for ($left = (int) $_GET['bytes'], $i = 0; $left > 0; $left -= 600, $i++) {
    header(sprintf('X-Filler-%03d: %s', $i, str_repeat(chr(97 + $i % 26), 600 - 16)));
}
setcookie('first', '1');
setcookie('second', '2');
echo "behind a long head\n";
