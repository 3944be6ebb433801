<?php
// The ordinary page.
header('Content-Type: text/plain');
echo "hello\n";
