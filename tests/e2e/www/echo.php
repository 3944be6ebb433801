<?php
// What PHP was asked, without what differs from run to run.
$length = 0;
$hash = hash_init('sha256');
$input = fopen('php://input', 'rb');
while (($chunk = fread($input, 1 << 20)) !== false && $chunk !== '') {
    $length += strlen($chunk);
    hash_update($hash, $chunk);
}
$server = $_SERVER;
foreach (['REQUEST_TIME', 'REQUEST_TIME_FLOAT', 'VELOX_SIDECAR', 'SERVER_ADDR'] as $name) {
    unset($server[$name]);
}
ksort($server);
header('Content-Type: application/json');
echo json_encode([
    'method' => $_SERVER['REQUEST_METHOD'],
    'length' => $length,
    'sha256' => hash_final($hash),
    'get' => $_GET,
    'post' => $_POST,
    'server' => $server,
    'sidecar' => $_SERVER['VELOX_SIDECAR'] ?? null,
], JSON_PARTIAL_OUTPUT_ON_ERROR);
