<?php
// Ends the request at once; goes on until the test allows it to end.
require __DIR__ . '/sync.inc';
echo "the answer\n";
fastcgi_finish_request();
sync_wait('finish-go');
sync_make('finish-done');
